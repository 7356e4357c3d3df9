"""README and docs: their Python runs, their links lead somewhere, and the API pages are complete.

A block that cannot run here has a comment on the line before it, which the page does not show:
``<!-- not run: the reason -->``, or ``<!-- needs: a package -->`` where it can run beside that.
"""

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

import fastseq
import fastseq.models
import fastseq.nn
import fastseq.onnx
import fastseq.recipes
import fastseq.transfer

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
API = sorted(ROOT.glob("docs/api/*.md"))
LANGUAGES = {"python", "bash", "diff", "text", "yaml"}


class Block(NamedTuple):
    language: str
    line: int  # of its first line of code, from 1
    code: str
    mark: str  # the comment before it, or nothing


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, with the comments that stand right before them."""
    lines = iter(enumerate(text.splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.startswith("```"):
            code = []
            for _, inside in lines:
                if inside.startswith("```"):
                    break
                code.append(inside)
            comment = re.fullmatch(r"<!-- (.+) -->", before)
            yield Block(line[3:], number + 1, "\n".join(code), comment[1] if comment else "")
        before = line.strip() or before


def run(text: str, name: str) -> int:
    """Run a page's blocks in one namespace, as a reader would; how many there were."""
    namespace: dict[str, Any] = {"__name__": name}
    count = 0
    for block in blocks(text):
        if block.language != "python" or block.mark.startswith("not run: "):
            continue
        if block.mark.startswith("needs: "):
            packages = block.mark.removeprefix("needs: ").split(", ")
            if any(importlib.util.find_spec(package) is None for package in packages):
                continue
        # Empty lines before it: an error names the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        exec(code, namespace)
        count += 1
    return count


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_python() -> list[Path]:
    return [p for p in PAGES if any(b.language == "python" for b in blocks(p.read_text()))]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", with_python(), ids=named)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    run(page.read_text(), named(page))


def test_blocks_share_names_and_errors_name_the_line() -> None:
    page = "A page.\n```python\nx = 1\n```\n\n```python\n\nassert x == 2\n```\n"
    with pytest.raises(AssertionError) as caught:
        run(page, "page.md")
    assert caught.traceback[-1].lineno + 1 == 8
    assert run(page.replace("2\n", "1\n"), "page.md") == 2


def test_marked_blocks_are_left_out() -> None:
    page = "<!-- {} -->\n```python\nraise ValueError\n```\n"
    assert run(page.format("not run: it raises"), "page.md") == 0
    assert run(page.format("needs: no_such_package"), "page.md") == 0
    for mark in ("not run", "needs: torch", "a remark"):
        with pytest.raises(ValueError):
            run(page.format(mark), "page.md")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_has_a_language(page: Path) -> None:
    """No Python hides from the test above in a block that does not say what it is."""
    assert {block.language for block in blocks(page.read_text())} <= LANGUAGES


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs make of a heading."""
    words = re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower())
    return re.sub(r"[\s-]+", "-", words.strip())


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = without_blocks(page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", without_blocks(file.read_text()), re.MULTILINE)
            assert anchor in map(slug, headings), target


def shown() -> list[str]:
    """The names under which the API pages show something."""
    return [n for page in API for n in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)]


def documented() -> dict[str, Any]:
    """What the API pages show, by name; without the recipes, whose imports take long."""
    return {name: resolved(name) for name in shown() if not name.startswith("fastseq.recipes.")}


def resolved(name: str) -> Any:
    """What the site shows under a name: where a module and a function share it, the module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


def public(module: ModuleType) -> dict[str, Any]:
    """A module's public names, but for modules, and for the version, which has no docstring."""
    found = {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    return {n: value for n, value in found.items() if not isinstance(value, (ModuleType, str))}


@pytest.mark.parametrize(
    "module",
    [
        fastseq,
        fastseq.functional,
        fastseq.models,
        fastseq.nn,
        fastseq.onnx,
        fastseq.reference,
        importlib.import_module("fastseq.swap"),  # the attribute is the function
        fastseq.transfer,
    ],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_on_the_api_pages(module: ModuleType) -> None:
    there = {id(value) for value in documented().values()}
    missing = [name for name, value in public(module).items() if id(value) not in there]
    assert not missing


def test_what_the_api_pages_show_is_documented() -> None:
    assert len(shown()) == len(set(shown()))
    for name, value in documented().items():
        assert value.__doc__, name


def test_the_api_pages_show_every_recipe() -> None:
    """Its function and its options, read and not imported: Lightning takes long."""
    for words, folder in fastseq.recipes.commands().items():
        config = "".join(part.title() for part in folder.split("_")) + "Config"
        for file, kind, name in (
            ("run", "def", words.replace(" ", "_")),
            ("config", "class", config),
        ):
            source = Path(fastseq.__file__).parent / "recipes" / folder / f"{file}.py"
            assert re.search(rf"^{kind} {name}\b", source.read_text(), re.MULTILINE)
            assert f"fastseq.recipes.{folder}.{file}.{name}" in shown()


def test_the_site_has_every_page() -> None:
    yaml = pytest.importorskip("yaml", reason="the cli extra is not installed")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Takes the tags that name Python objects for None."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)

    def files(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values() if isinstance(entry, dict) else entry:
                yield from files(value)

    pages = {str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")}
    # Those that docs/site.py takes from the root.
    assert set(files(config["nav"])) == pages | {"index.md", "contributing.md", "changelog.md"}
