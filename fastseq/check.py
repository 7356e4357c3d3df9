"""Outputs and gradients of every op, beside the native PyTorch op and a float64 reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

import fastseq.nn
from fastseq.check_cases import FAMILIES, Case, Outputs
from fastseq.functional import cuda_stack
from fastseq.functional.cuda_route import STEP, cuda_rnn
from fastseq.ops import routes

# About fifty roundings of the dtype for the wide ones, whose errors add up over the steps; four
# for the 16-bit ones, whose sums are carried in float32, so that storing the steps dominates.
TOLERANCES = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.bfloat16: 2e-2,
    torch.float16: 4e-3,
}
ROUTED = ("LSTM", "GRU", "RNN")  # on a GPU these go one way of several
QUICK = (torch.float32,)
WIDE = (torch.float32, torch.float64)
Errors = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """Errors of one case in one dtype; each is ||difference|| / ||reference||, the worst tensor's.

    Attributes:
        op: Name of the op.
        shape: Sizes and options.
        dtype: Short name of the dtype.
        output: fastseq's error in the outputs.
        gradient: fastseq's error in the gradients of inputs and parameters.
        native_output: The native op's error in the outputs; NaN where it does not have the dtype.
        native_gradient: The native op's error in the gradients.
        verdict: ``"ok"``, ``"MISMATCH"``, or what was raised.
    """

    op: str
    shape: str
    dtype: str
    output: float
    gradient: float
    native_output: float
    native_gradient: float
    verdict: str

    @property
    def ok(self) -> bool:
        """Whether outputs and gradients are right."""
        return self.verdict == "ok"


@dataclass(frozen=True)
class Report:
    """All rows of one run of the check."""

    device: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is right; a check of nothing proves nothing."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def table(self, full: bool = False) -> str:
        """Return the errors as aligned text.

        Args:
            full: Every row; otherwise the worst of each op and dtype, and every mismatch.
        """
        header = ("op", "worst at", "dtype", "output", "gradient", "native", "native", "verdict")
        if full:
            header = ("op", "shape", *header[2:])
        lines = [("", "", "", "error", "error", "output", "gradient", "")]
        for row in self.rows if full else self._worst():
            ours = (f"{row.output:.1e}", f"{row.gradient:.1e}")
            native = (_spell(row.native_output), _spell(row.native_gradient))
            lines.append((row.op, row.shape, row.dtype, *ours, *native, row.verdict))
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip() for line in (header, *lines)
        )

    def verdict(self) -> str:
        """Return the outcome in a line."""
        wrong = sum(not row.ok for row in self.rows)
        if self.ok:
            return f"all {len(self.rows)} checks passed on {self.device}"
        return f"{wrong} of {len(self.rows)} checks FAILED on {self.device}"

    def _worst(self) -> list[Row]:
        worst: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            key = (row.op, row.dtype)
            if key not in worst or _largest(row) > _largest(worst[key]):
                worst[key] = row
        shown = list(worst.values())
        return shown + [row for row in self.rows if not row.ok and row not in shown]


def run(device: str = "cpu", quick: bool = False) -> Report:
    """Check every op on a device.

    On a GPU recurrences are checked by the step kernels, and by the route that calls take here and
    now: what ``fastseq.cuda_rnn`` or ``FASTSEQ_CUDA_RNN`` forces, or else the rules choose. TF32 is
    off throughout, so that in float32 the persistent route goes step by step.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        quick: Only float32, instead of all four dtypes.

    Returns:
        The report; ``report.ok`` is the verdict.

    Raises:
        ValueError: If torch cannot use the device.

    Example:
        >>> import fastseq.check
        >>> report = fastseq.check.run(quick=True)
        >>> report.ok
        True
    """
    try:
        torch.empty(0, device=device)
    # torch without CUDA asserts, and an unknown name is a RuntimeError.
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device is {device!r}, which torch cannot use here ({_first_line(error)}); "
            f"pass cpu, or cuda on a machine with a GPU"
        ) from error
    dtypes = QUICK if quick else tuple(TOLERANCES)
    cases = [case for family in FAMILIES for case in family()]
    # cuDNN would multiply float32 in TF32, whose error would then excuse ours; forking the random
    # state leaves the caller's as it was.
    with torch.backends.cudnn.flags(allow_tf32=False), torch.random.fork_rng(devices=[]):
        rows = [
            check_case(case, dtype, device, route)
            for case in cases
            for dtype in dtypes
            if dtype in WIDE or not case.wide_only
            for route in _routes(case, device)
        ]
    return Report(device, tuple(rows))


def _routes(case: Case, device: str) -> tuple[str, ...]:
    if case.op not in ROUTED or torch.device(device).type not in cuda_stack.DEVICES:
        return (STEP,)  # which is nothing to them
    return tuple(dict.fromkeys((STEP, routes.forced()[0])))


def check_case(case: Case, dtype: torch.dtype, device: str = "cpu", route: str = STEP) -> Row:
    """Compare one case in one dtype with the float64 reference and with the native op.

    Args:
        case: which.
        dtype: of the module and its inputs.
        device: where they are.
        route: of recurrences on a GPU.
    """
    torch.manual_seed(0)
    # Rounded to the dtype first: the reference has float64 arithmetic on the very same numbers.
    state = {
        name: value.to(dtype).double()
        for name, value in case.build(torch.nn).double().state_dict().items()
    }
    inputs = [torch.randn(shape, dtype=torch.float64).to(dtype).double() for shape in case.inputs]
    reference = _evaluate(case, torch.nn, state, inputs, torch.float64, "cpu")
    try:
        native = _errors(_evaluate(case, torch.nn, state, inputs, dtype, device), reference)
    # Not every release has every native op in the 16-bit types.
    except (RuntimeError, NotImplementedError):
        native = (math.nan, math.nan)
    verdict = "ok"
    try:
        with cuda_rnn(route):
            made = _evaluate(case, fastseq.nn, state, inputs, dtype, device)
        ours = _errors(made, reference)
    # Whatever is raised here is a finding, and the other cases should still be checked.
    except Exception as error:
        ours = (math.nan, math.nan)
        verdict = f"raised {type(error).__name__}: {_first_line(error)}"
    else:
        if not all(_within(*pair, TOLERANCES[dtype]) for pair in zip(ours, native, strict=True)):
            verdict = "MISMATCH"
    shape = case.shape if route == STEP else f"{case.shape} by {route}"
    return Row(case.op, shape, str(dtype).removeprefix("torch."), *ours, *native, verdict)


def _evaluate(
    case: Case,
    library: ModuleType,
    state: dict[str, Tensor],
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    device: str,
) -> tuple[Outputs, Outputs]:
    """Return outputs and gradients, in the dtype in which they came."""
    module = case.build(library).to(device=device, dtype=dtype)
    module.load_state_dict(state)
    # Copied, because to() returns the very tensor where device and dtype are already right.
    leaves = [value.to(device, dtype, copy=True).requires_grad_() for value in inputs]
    outputs = case.forward(module, leaves)
    with torch.no_grad():
        # Without gradients the kernels save nothing, and may take another path.
        plain = case.forward(module, leaves)
    generator = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs
    ]
    gradients = torch.autograd.grad(outputs, [*leaves, *module.parameters()], weights)
    return [*outputs, *plain], gradients


def _errors(result: tuple[Outputs, Outputs], reference: tuple[Outputs, Outputs]) -> Errors:
    outputs, gradients = (
        _worst_error([_error(*pair) for pair in zip(ours, theirs, strict=True)])
        for ours, theirs in zip(result, reference, strict=True)
    )
    return outputs, gradients


def _error(value: Tensor, reference: Tensor) -> float:
    if value.shape != reference.shape:
        return math.inf
    difference = torch.linalg.vector_norm(value.detach().double().cpu() - reference.detach()).item()
    norm = torch.linalg.vector_norm(reference.detach()).item()
    return difference / norm if norm > 0.0 else (0.0 if difference == 0.0 else math.inf)


def _worst_error(errors: Sequence[float]) -> float:
    # Python's max() drops or keeps a NaN by its place in the list.
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def _within(error: float, native: float, tolerance: float) -> bool:
    # A native op that overflows excuses nothing, and a NaN of ours compares false.
    allowed = max(tolerance, 2.0 * native) if math.isfinite(native) else tolerance
    return error <= allowed


def _largest(row: Row) -> float:
    errors = (row.output, row.gradient)
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def _spell(error: float) -> str:
    return "-" if math.isnan(error) else f"{error:.1e}"
