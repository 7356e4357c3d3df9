"""The name of this machine's processor, down to its generation.

A speed holds on the processor it was measured on, and clouds say no more than "AMD EPYC".
"""

from __future__ import annotations

import platform
from pathlib import Path

# By vendor and family: the first model that is no longer of the generation, and its name.
_GENERATIONS: dict[tuple[str, int], tuple[tuple[int, str], ...]] = {
    ("AuthenticAMD", 0x17): ((0x10, "Zen"), (0x20, "Zen+"), (0x100, "Zen 2")),
    ("AuthenticAMD", 0x19): (
        (0x10, "Zen 3"), (0x20, "Zen 4"), (0x60, "Zen 3"), (0x80, "Zen 4"), (0x100, "Zen 4"),
    ),
    ("AuthenticAMD", 0x1A): ((0x100, "Zen 5"),),
}  # fmt: skip
# Intel numbers its models as they come.
_INTEL = {
    0x3C: "Haswell", 0x3F: "Haswell", 0x45: "Haswell", 0x46: "Haswell",
    0x3D: "Broadwell", 0x47: "Broadwell", 0x4F: "Broadwell", 0x56: "Broadwell",
    0x4E: "Skylake", 0x5E: "Skylake", 0x55: "Skylake-SP",
    0x8E: "Kaby Lake", 0x9E: "Kaby Lake", 0xA5: "Comet Lake", 0xA6: "Comet Lake",
    0x6A: "Ice Lake", 0x6C: "Ice Lake", 0x7D: "Ice Lake", 0x7E: "Ice Lake",
    0x8C: "Tiger Lake", 0x8D: "Tiger Lake", 0xA7: "Rocket Lake",
    0x97: "Alder Lake", 0x9A: "Alder Lake", 0xB7: "Raptor Lake", 0xBA: "Raptor Lake",
    0xBF: "Raptor Lake", 0xAA: "Meteor Lake", 0xAC: "Meteor Lake",
    0x8F: "Sapphire Rapids", 0xCF: "Emerald Rapids", 0xAD: "Granite Rapids",
    0xAE: "Granite Rapids", 0xBD: "Lunar Lake", 0xC5: "Arrow Lake", 0xC6: "Arrow Lake",
}  # fmt: skip
_CASCADE_LAKE, _COOPER_LAKE = range(5, 10), range(10, 16)  # steppings of Skylake-SP's model


def cpu_model(text: str | None = None) -> str:
    """The processor's name and, in brackets, its generation, as in "AMD EPYC (Zen 3)".

    Args:
        text: of /proc/cpuinfo; this machine's if left out.
    """
    if text is None:
        try:
            text = Path("/proc/cpuinfo").read_text()
        except OSError:
            text = ""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())  # of the first core
    name = facts.get("model name")
    if not name:
        return platform.processor() or platform.machine()
    generation = _generation(facts)
    return f"{name} ({generation})" if generation else name


def _generation(facts: dict[str, str]) -> str:
    """Its name; the numbers behind it where that is not known; empty where there are none."""
    try:
        family, model = int(facts["cpu family"]), int(facts["model"])
    except (KeyError, ValueError):
        return ""
    vendor = facts.get("vendor_id", "")
    for end, name in _GENERATIONS.get((vendor, family), ()):
        if model < end:
            return name
    if vendor == "GenuineIntel" and family == 6 and model in _INTEL:
        stepping = int(facts.get("stepping", "0"))
        if model == 0x55 and stepping in _CASCADE_LAKE:
            return "Cascade Lake"
        return "Cooper Lake" if model == 0x55 and stepping in _COOPER_LAKE else _INTEL[model]
    return f"family {family}, model {model}"
