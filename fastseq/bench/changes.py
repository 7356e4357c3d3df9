"""`fastseq bench compare A.csv B.csv`: what changed from one run to another, beyond the noise.

A change counts if the 95 % intervals of the two medians do not meet. Two runs differ by more than
their rounds do (the clock, the heat, where memory lies), so changes below 2 % are none either.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from fastseq.bench import rows

LEAST = 0.02  # of the time; smaller changes come and go by themselves
KEY = (*rows.CASE, "device", "cpu", "gpu", "threads", "provider")


@dataclass(frozen=True)
class Change:
    """One provider of one case in both files.

    Attributes:
        label: op, shape, dtype, mode, threads and provider.
        provider: whose.
        before: median in ms.
        after: median in ms.
        verdict: "faster", "slower" or "no change".
    """

    label: str
    provider: str
    before: float
    after: float
    verdict: str

    def line(self) -> str:
        """In a line of text."""
        percent = 100 * (self.after / self.before - 1)
        figures = f"{self.before:>10.4g} {self.after:>10.4g} ms {percent:>+7.1f} %"
        return f"{self.label:<64}{figures}  {self.verdict}"


def changes(before: Path, after: Path) -> list[Change]:
    """Compare the newest rows of every case that both files have.

    Raises:
        ValueError: a file has no rows of `fastseq bench`, or the two have no case in common.
    """
    old, new = _newest(before), _newest(after)
    both = [key for key in new if key in old]
    if not both:
        raise ValueError(
            f"{before} and {after} have no case in common: op, shape, dtype, mode, layout, "
            "threads, machine and provider must be the same"
        )
    return [_change(old[key], new[key]) for key in both]


def _newest(path: Path) -> dict[tuple[str, ...], rows.Row]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        found = list(reader)
    missing = {*KEY, "run", "median_ms", "low_ms", "high_ms"} - set(reader.fieldnames or ())
    if missing or not found:
        raise ValueError(f"{path} has no rows that `fastseq bench` wrote")
    newest: dict[tuple[str, ...], rows.Row] = {}
    for row in found:
        case = *(row[name] for name in KEY), row.get("heap", "")
        key = (*case, *rows.shape_of(row).values())
        if key not in newest or newest[key]["run"] <= row["run"]:
            newest[key] = row
    return newest


def _change(old: rows.Row, new: rows.Row) -> Change:
    sizes = ",".join(rows.shape_of(new).values())
    words = (new["op"], sizes, new["layout"], new["dtype"], new["mode"], new["threads"] + " thr")
    before, after = float(old["median_ms"]), float(new["median_ms"])
    verdict = "no change"
    if abs(after / before - 1) >= LEAST:
        if float(new["high_ms"]) < float(old["low_ms"]):
            verdict = "faster"
        elif float(new["low_ms"]) > float(old["high_ms"]):
            verdict = "slower"
    label = f"{' '.join(words)} {new['provider']}"
    return Change(label, new["provider"], before, after, verdict)
