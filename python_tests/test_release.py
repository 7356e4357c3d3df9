"""What a release goes through: the CHANGELOG, the wheel's looks, the Pythons of a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fastseq

TOOLS = Path(__file__).resolve().parents[1] / "tools"
TEXT = (
    "# Changelog\n\n## [Unreleased]\n\n### Added\n- A thing.\n\n## [0.0.9] - 2026-01-01\n- Old.\n"
)


@pytest.fixture
def changelog(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import changelog

    return changelog


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import release

    return release


def test_unreleased_changes_become_those_of_a_version(changelog: ModuleType) -> None:
    made = changelog.cut(TEXT, "0.1.0", "2026-02-03")
    head, after = made.split("## [0.1.0] - 2026-02-03")
    assert head.endswith("## [Unreleased]\n\n")
    assert after.startswith("\n\n### Added\n- A thing.\n")
    changelog.check(made, "0.1.0", "v0.1.0")
    with pytest.raises(ValueError, match=r"has 0\.1\.0 already; raise fastseq/_version\.py first"):
        changelog.cut(made, "0.1.0", "2026-02-03")
    with pytest.raises(ValueError, match="nothing under"):
        changelog.cut(made, "0.2.0", "2026-02-03")


def test_a_tag_that_is_not_the_versions(changelog: ModuleType) -> None:
    with pytest.raises(
        ValueError, match=r"the tag is v0\.2\.0, and fastseq/_version\.py says 0\.1"
    ):
        changelog.check(TEXT, "0.1.0", "v0.2.0")
    with pytest.raises(ValueError, match=r"no '## \[0\.1\.0\] - DATE'"):
        changelog.check(TEXT, "0.1.0", "v0.1.0")
    assert changelog.version() == fastseq.__version__


def test_this_version_can_be_cut(changelog: ModuleType) -> None:
    text = changelog.CHANGELOG.read_text()
    if f"## [{fastseq.__version__}]" not in text:
        text = changelog.cut(text, fastseq.__version__, "2026-02-03")
    changelog.check(text, fastseq.__version__, f"v{fastseq.__version__}")


def test_changelog_without_a_command() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "changelog.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "say 'cut', or 'check' and a tag\n"


def test_pythons_are_those_that_run_and_are_new_enough(
    release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does in (("3.9", "exit 0"), ("3.11", "exit 0"), ("3.10", "exit 0"), ("3.14", "no")):
        program = tmp_path / f"python{name}"
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    (tmp_path / "python3.12-config").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    assert release.pythons() == [tmp_path / "python3.10", tmp_path / "python3.11"]


def test_a_step_that_fails_ends_a_release_with_its_words(release: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"(?s)so it goes.*exit 3"):
        release.run(sys.executable, "-c", "print('so it goes'); raise SystemExit(3)")
