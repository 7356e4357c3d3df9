"""The sections of ``gpu.py`` that time something, each until its deadline, and their report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import gpu_cases
import gpu_timing
import torch
from gpu_timing import Deadline, Samples
from torch import Tensor

from fastseq.bench import harness, rnn_cases, rows
from fastseq.bench.harness import Provider, Timing
from fastseq.bench.images import COMPILED
from fastseq.bench.rnn_cases import Case, Cell, DType, Layout, Mode
from fastseq.bench.rows import Row

SECONDS = 0.04  # of one provider in one case; in a rehearsal a few calls
HALF = 0.4  # as much of it is for half as many steps
RECURRENT, IMAGES = "gpu_rnn.csv", "gpu_images.csv"


class Says(Protocol):
    """What takes lines."""

    def say(self, text: str) -> None:
        """Take a line, or several."""


class Bench:
    """What has been measured, what went wrong, and what did not fit in the time.

    Args:
        device: where.
        run: the columns that all rows share, ``rows.RUN`` but the threads, and ``rows.SOFTWARE``.
        out: the folder of rows and pictures.
        log: takes what there is to say.
    """

    def __init__(self, device: torch.device, run: Row, out: Path, log: Says) -> None:
        self.device, self.run, self.out, self.log = device, run, out, log
        self.tiny = device.type == "cpu"
        self.seconds = 0.0 if self.tiny else SECONDS
        self.rows: dict[str, list[Row]] = {RECURRENT: [], IMAGES: []}
        self.wrong: list[str] = []
        self.left_out: list[str] = []
        self.noise: dict[str, float] = {}
        self.looked = False

    def spread(self, deadline: Deadline) -> None:
        """How far apart medians of the same work lie, before anything is compared."""
        shape = gpu_cases.TINY[0] if self.tiny else gpu_cases.STACK
        for mode in (Mode.infer, Mode.train):
            dtype = DType.float32 if self.tiny else DType.bfloat16
            case = Case(Cell.lstm, dtype, mode, Layout.dense, shape)
            calls = gpu_cases.recurrent_calls(case, self.device)
            for name in (rows.NATIVE, rows.OURS):
                if deadline.over():
                    self.left_out.append(f"spread of {name}, {gpu_cases.label(case)}")
                    continue
                ratio = gpu_timing.a_to_a(calls[name], self.device, self.seconds)
                self.noise[f"{name} {mode.value}"] = ratio
                self.log.say(f"{gpu_cases.label(case)}, {name}: medians within {ratio:.3f}x")

    def recurrences(self, deadline: Deadline) -> None:
        """LSTM, GRU and RNN by every route."""
        names = [rows.NATIVE, rows.OURS, *(f"{rows.OURS} {r}" for r in gpu_cases.ROUTES)]
        self.log.say(rows.header(names))
        for case in gpu_cases.recurrent(self.tiny):
            self._case(
                deadline,
                gpu_cases.label(case),
                lambda case=case: self._recurrent(case),  # type: ignore[misc]
                names,
            )

    def images(self, deadline: Deadline, compiled: bool) -> None:
        """LRN, pooling and the trio; a few under torch.compile, if that is wanted."""
        names = [rows.NATIVE, rows.OURS, *([COMPILED] * compiled)]
        self.log.say(rows.header(names))
        chosen = gpu_cases.compiled_pictures if compiled else gpu_cases.pictures
        for case in chosen(self.tiny):
            words = gpu_cases.image_label(case) + " compiled" * compiled
            self._case(
                deadline,
                words,
                lambda case=case: self._image(case, compiled),  # type: ignore[misc]
                names,
            )

    def _case(
        self,
        deadline: Deadline,
        words: str,
        measure: Callable[[], tuple[str, list[Row]]],
        names: Sequence[str],
    ) -> None:
        if deadline.over():
            self.left_out.append(words)
            return
        try:
            file, made = measure()
        except Exception as error:  # whatever it is, the other cases have their time
            self.wrong.append(f"{words}: {[*str(error).splitlines(), type(error).__name__][0]}")
            self.log.say(f"FAILED {self.wrong[-1]}")
            return
        rows.append(self.out / file, made)
        self.rows[file] += made
        self.log.say(rows.line(rows.compare(made)[0], names))

    def _recurrent(self, case: Case) -> tuple[str, list[Row]]:
        calls = gpu_cases.recurrent_calls(case, self.device)
        errors = self._errors(calls, gpu_cases.label(case), rnn_cases.tolerance(case, self.device))
        half: dict[str, Samples] = {}
        steps, batch, width, hidden = case.shape
        if case.layout is Layout.dense and steps > 1:
            shorter = replace(case, shape=(steps // 2, batch, width, hidden))
            half = self._samples(
                gpu_cases.recurrent_calls(shorter, self.device), HALF * self.seconds
            )
        found = self._samples(calls, self.seconds)
        made = self._rows(case.columns(), case.sizes(), found)
        for row in made:
            name = row["provider"]
            row["error"] = f"{errors[name]:.1e}"
            row["kernels"] = self._kernels(calls, name) if name == rows.NATIVE else ""
            row["step_us"] = row["fixed_us"] = ""
            if name in half:
                whole, part = (s[name].quantile(0.5) for s in (found, half))
                step = (whole - part) / (steps - steps // 2)
                row["step_us"] = f"{1e3 * step:.4g}"
                row["fixed_us"] = f"{1e3 * (whole - step * steps):.4g}"
        return RECURRENT, made

    def _image(self, case: gpu_cases.ImageCase, compiled: bool) -> tuple[str, list[Row]]:
        op, dtype, *_, shape = case
        calls = gpu_cases.image_calls(case, self.device, compiled)
        allowed = harness.TOLERANCE[rnn_cases.TORCH_DTYPE[dtype]]
        # In 16 bits rounding decides which of two equal values has the trio's gradient.
        count = 1 if op.tolerance and dtype is not DType.float32 else None
        errors = self._errors(
            calls, gpu_cases.image_label(case), max(allowed, op.tolerance or 0.0), count
        )
        sizes = dict(zip("NCHW", shape, strict=True))
        columns = gpu_cases.image_columns(case)
        made = self._rows(columns, sizes, self._samples(calls, self.seconds))
        for row in made:
            row["error"] = f"{errors[row['provider']]:.1e}"
            row["kernels"] = self._kernels(calls, row["provider"])
            row["step_us"] = row["fixed_us"] = ""
        return IMAGES, made

    def _kernels(self, calls: gpu_cases.Calls, name: str) -> str:
        """What takes most of a provider's time; in a rehearsal, where each look is slow, once."""
        if self.tiny and self.looked:
            return "-"
        self.looked = True
        return gpu_timing.kernels(calls[name][0], self.device)

    def _samples(self, calls: gpu_cases.Calls, seconds: float) -> dict[str, Samples]:
        return {name: gpu_timing.sample(own, self.device, seconds) for name, own in calls.items()}

    def _errors(
        self, calls: gpu_cases.Calls, words: str, allowed: float, count: int | None = None
    ) -> dict[str, float]:
        """How far each provider's results are from torch.nn's, at most; too far is told."""
        expected = list(calls[rows.NATIVE][0]())[:count]
        found = {}
        for name, (call, *_) in calls.items():
            results: list[Tensor] = list(call())[:count]
            pairs = zip(results, expected, strict=True)
            found[name] = max(harness.distance(one, other) for one, other in pairs)
            if not found[name] <= allowed:  # also of nan
                self.wrong.append(f"{words}: {name} is off by {found[name]:.1e}")
        return found

    def _rows(self, columns: Row, sizes: dict[str, int], found: dict[str, Samples]) -> list[Row]:
        timings = [
            Timing(Provider(name, lambda: ()), 1, samples.ms, 0.0)
            for name, samples in found.items()
        ]
        threads = torch.get_num_threads()
        made = harness.make_rows(self.run, threads, columns, sizes, timings)
        for row, samples in zip(made, found.values(), strict=True):
            row["p10_ms"], row["p90_ms"] = (f"{samples.quantile(q):.5g}" for q in (0.1, 0.9))
            row["host_us"] = f"{samples.host_us:.4g}"
        return made

    def pictures(self) -> None:
        """Draw what there is, if there is matplotlib."""
        try:
            from fastseq.bench import plot
        except ImportError as missing:
            self.left_out.append(f"pictures: {missing}")
            return
        for file, made in self.rows.items():
            if rows.compare(made):
                for path in plot.draw(self.out / file, self.out, plot.Kind.bars):
                    self.log.say(f"drawn: {path.name}")

    def report(self) -> None:
        """What was left out, what is wrong, and last the tables."""
        for title, lines in (("Did not fit in the time", self.left_out), ("WRONG", self.wrong)):
            if lines:
                self.log.say("\n".join(["", f"{title} ({len(lines)}):", *lines]))
        self.log.say(step_table(self.rows[RECURRENT]))
        noise = ", ".join(f"{name} {ratio:.3f}x" for name, ratio in self.noise.items())
        about = ", ".join(f"{k} {self.run[k]}" for k in ("torch", *rows.SOFTWARE) if self.run[k])
        where = self.run["gpu"] or self.run["cpu"]
        self.log.say(f"\n{where}, {about}, commit {self.run['commit']}")
        if noise:
            self.log.say(f"The same work against itself: {noise}")
        found = [item for made in self.rows.values() for item in rows.compare(made)]
        self.log.say("\n".join(rows.summary_lines(found)))


def step_table(made: Iterable[Row]) -> str:
    """Microseconds a step, of all that is not a step, and of the host; and cuDNN's kernels."""
    head = f"{'case':<58}{'provider':<16}{'us/step':>9}{'fixed us':>10}{'host us':>10}  kernels"
    lines = ["", head]
    for row in made:
        sizes = ", ".join(row[name] for name in "TBIH")
        case = f"{row['op']} {row['dtype']} {row['mode']} {row['layout']} {sizes}"
        lines.append(
            f"{case:<58}{row['provider']:<16}{row['step_us'] or '-':>9}{row['fixed_us'] or '-':>10}"
            f"{row['host_us']:>10}  {row['kernels']}".rstrip()
        )
    return "\n".join(lines)
