"""What a mutant is, and how it gets into a source.

A Python file takes one mutant at a time, as a patch. C++ takes all of them at once, as a choice
that is made at run time, so that the kernels compile once for all of their mutants.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

# In front of every C++ source that has mutants; the environment says which one is on.
SWITCH = """\
#pragma once
#include <cstdlib>
inline const unsigned long fastseq_mutant = [] {
  const char* const code = std::getenv("FASTSEQ_MUTANT");
  return code ? std::strtoul(code, nullptr, 16) : 0ul;
}();
"""


class Stale(Exception):
    """A mutant's snippet is not where it was: the source has moved on, and the list must follow."""


class NoVerdict(Exception):
    """Tests neither passed nor failed, or failed without any mutant."""


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        name: what is wrong, in words; no two mutants share one.
        file: the source, from the root of the checkout.
        old: what is right. In C++ an expression, or statements up to a ``;`` or ``}``.
        new: what is wrong instead.
        tests: pytest's ids, from ``python_tests``, of those that should notice.
        at: a longer snippet around ``old`` where ``old`` alone is there more than once.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    at: str = ""

    @property
    def compiled(self) -> bool:
        """Whether it is in C++ or CUDA."""
        return self.file.startswith("csrc/")

    @property
    def code(self) -> str:
        """How ``FASTSEQ_MUTANT`` names it: by the name alone, so that others do not renumber it."""
        return f"{zlib.crc32(self.name.encode()):08x}"

    def span(self, text: str) -> tuple[int, int]:
        """Where ``old`` begins and ends in the source.

        Raises:
            Stale: it, or what is around it, is not there exactly once.
        """
        around = self.at or self.old
        first = self._only(text, around, self.file)
        first += self._only(around, self.old, "its snippet")
        return first, first + len(self.old)

    def _only(self, text: str, snippet: str, where: str) -> int:
        count = text.count(snippet)
        if count != 1:
            raise Stale(
                f"mutant '{self.name}' looks for {snippet!r} once in {where} and finds it "
                f"{count} times; aim it anew, or drop it if the code it was about is gone"
            )
        return text.index(snippet)

    def patched(self, text: str) -> str:
        """The source with the mistake."""
        first, last = self.span(text)
        return text[:first] + self.new + text[last:]

    def chosen(self) -> str:
        """C++ that is wrong while the mutant is on, and else as it was."""
        on = f"fastseq_mutant == 0x{self.code}u"
        if self.old.rstrip().endswith((";", "}")):
            return f"if ({on}) {{ {self.new} }} else {{ {self.old} }}"
        return f"({on} ? ({self.new}) : ({self.old}))"


def with_switches(text: str, mutants: Iterable[Mutant], header: str) -> str:
    """A C++ source that holds all of its mutants; ``header`` is the path of ``SWITCH``.

    Raises:
        Stale: a snippet is not there exactly once, or two mutants want the same place.
    """
    end = len(text)
    for (first, last), mutant in sorted(
        ((mutant.span(text), mutant) for mutant in mutants), key=lambda found: -found[0][0]
    ):
        if last > end:
            raise Stale(f"mutant '{mutant.name}' and another one overlap in {mutant.file}")
        text, end = text[:first] + mutant.chosen() + text[last:], first
    return f'#include "{header}"\n{text}'
