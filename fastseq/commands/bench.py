"""`fastseq bench rnn | lrn | pool | trio | cells | models | compare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import App, Parameter

from fastseq.commands.refuse import refuse, refusing

Cell = Literal["lstm", "gru", "rnn"]
SingleStep = Literal["LSTMCell", "GRUCell", "RNNCell"]
Model = Literal["RowRNN", "CharRNN", "Seq2Seq", "BiLSTM tagger", "AlexNet", "GoogLeNet"]
DType = Literal["float32", "bfloat16", "float16"]
Infer = Literal["infer", "forward", "train"]
Both = Literal["infer", "train"]

MODELS: tuple[Model, ...] = get_args(Model)
RNN_SHAPES = ("28,64,28,128", "128,1,256,256", "128,32,256,256", "100,64,512,512", "1000,20,40,100")
IMAGE_SHAPES = ("32,96,55,55", "32,256,27,27", "8,64,112,112")
CELL_SHAPES = ("1,32,32", "64,128,256")


@dataclass(frozen=True)
class Measure:
    """How to measure, whatever it is."""

    threads: tuple[int, ...] = ()
    """Threads of every provider, repeatable; torch's number if left out."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    compiled: bool = False
    """torch.compile as well; a case then takes up to half a minute more."""

    memory: bool = False
    """Peak memory as well, each in a process of its own: seconds more for every provider."""

    keep_memory: bool = False
    """Let glibc keep freed memory: else large results are fresh pages at every call."""

    seconds: float = 1.0
    """For each case."""

    out: Path | None = None
    """CSV file that the rows are added to; bench_WORK.csv if left out."""

    no_picture: bool = False
    """Draw no picture of the rows beside the CSV file."""


Options = Annotated[Measure, Parameter(name="*")]
DEFAULT = Measure()


def rnn(
    *,
    shape: tuple[str, ...] = RNN_SHAPES,
    cell: tuple[Cell, ...] = ("lstm", "gru", "rnn"),
    dtype: tuple[DType, ...] = ("float32",),
    mode: tuple[Infer, ...] = ("infer", "train"),
    layout: tuple[Literal["dense", "packed"], ...] = ("dense",),
    measure: Options = DEFAULT,
) -> None:
    """Time LSTM, GRU and RNN beside torch.nn and, in float32 inference, ONNX Runtime.

    Args:
        shape: T,B,I,H: steps, rows, inputs, hidden units; repeatable, as are the next four.
        cell: Recurrences.
        dtype: Of weights, input and gradients.
        mode: infer; forward, that of training alone; train, with all gradients.
        layout: packed: rows of random lengths up to T.
        measure: How, whatever it is.
    """
    _bench("rnn", [(cell, dtype, mode, layout, _shapes(shape, "TBIH"))], measure)


def _image(work: str, what: str) -> Callable[..., None]:
    def command(
        *,
        shape: tuple[str, ...] = IMAGE_SHAPES,
        dtype: tuple[DType, ...] = ("float32",),
        mode: tuple[Both, ...] = ("infer", "train"),
        layout: tuple[Literal["NCHW", "NHWC"], ...] = ("NCHW", "NHWC"),
        measure: Options = DEFAULT,
    ) -> None:
        _bench(work, [((work,), dtype, mode, layout, _shapes(shape, "NCHW"))], measure)

    command.__name__ = work
    command.__doc__ = f"""Time {what} beside torch.nn and a copy of the input.

    Args:
        shape: N,C,H,W; repeatable, as are the next three.
        dtype: Of the images.
        mode: infer, or train: forward and the gradient of the input.
        layout: Memory format.
        measure: How, whatever it is.
    """
    return command


lrn = _image("lrn", "local response normalization over 5 channels")
pool = _image("pool", "overlapping max-pooling (3 x 3, stride 2)")
trio = _image("trio", "ReLU, LRN and max-pooling in one pass")


def cells(
    *,
    shape: tuple[str, ...] = CELL_SHAPES,
    cell: tuple[SingleStep, ...] = ("LSTMCell", "GRUCell", "RNNCell"),
    dtype: tuple[DType, ...] = ("float32",),
    mode: tuple[Both, ...] = ("infer", "train"),
    measure: Options = DEFAULT,
) -> None:
    """Time single steps: LSTMCell, GRUCell and RNNCell beside torch.nn's.

    Args:
        shape: B,I,H: rows, inputs, hidden units; repeatable, as are the next three.
        cell: Modules.
        dtype: Of weights, input and gradients.
        mode: infer, or train: forward and all gradients.
        measure: How, whatever it is.
    """
    _bench("cells", [(cell, dtype, mode, ("dense",), _shapes(shape, "BIH"))], measure)


def models(
    *,
    model: tuple[Model, ...] = MODELS,
    batch: int = 0,
    dtype: tuple[DType, ...] = ("float32",),
    measure: Options = DEFAULT,
) -> None:
    """Time a training step of whole models by torch.nn, and after fastseq.swap.

    Args:
        model: Which; repeatable.
        batch: Examples in a batch; each model's own number if 0.
        dtype: Of weights and gradients; repeatable.
        measure: How, whatever it is.
    """
    if batch < 0:
        refuse(f"--batch is {batch}, expected 0 or more", code=2)
    how = (dtype, ("train",), ("dense",))
    _bench("models", [((name,), *how, ((batch,),)) for name in model], measure)


def compare(before: Path, after: Path, *, check: bool = False) -> None:
    """Tell what changed from one CSV file of rows to another, beyond the noise.

    Args:
        before: Rows of `fastseq bench`.
        after: Rows of the same cases.
        check: Exit with code 1 if fastseq is slower somewhere.
    """
    from fastseq.bench.changes import changes

    try:
        found = changes(before, after)
    except (ValueError, OSError) as error:
        refuse(str(error))
    for change in found:
        print(change.line())
    counts = {v: sum(c.verdict == v for c in found) for v in ("faster", "slower", "no change")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if check and any(c.verdict == "slower" and c.provider == "fastseq" for c in found):
        raise SystemExit(1)


def bench_app() -> App:
    """The group of commands."""
    app = App(
        name="bench",
        help="Time fastseq beside torch.nn, torch.compile and ONNX Runtime.",
        default_parameter=Parameter(negative=()),
    )
    for command in (rnn, lrn, pool, trio, cells, models, compare):
        app.command(command)
    return app


Choice = tuple[
    tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[tuple[int, ...], ...]
]  # ops, dtypes, modes, layouts, shapes


def _bench(work: str, choices: list[Choice], measure: Measure) -> None:
    """Measure, keep, print, draw."""
    if min(measure.threads, default=1) < 1:
        refuse(f"--threads is {min(measure.threads)}, expected at least 1", code=2)
    with refusing("fastseq bench", "bench"):
        import torch
        from rich.progress import Progress

        from fastseq.bench import cases, heap, plot
        from fastseq.bench.run import bench

        device = torch.device(measure.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"--device is {measure.device}, and torch sees no GPU")
        if measure.memory and device.type != "cpu":
            raise ValueError("--memory measures the resident set of a process, on the CPU")
        if measure.keep_memory:
            heap.keep_freed_memory()
    works = [
        case
        for choice in choices
        for case in cases.works(
            cases.Asked(work, *choice, device=measure.device, compiled=measure.compiled)
        )
    ]
    threads = measure.threads or (torch.get_num_threads(),)
    out = measure.out or Path(f"bench_{work}.csv")
    with Progress(transient=True) as progress:
        task = progress.add_task(f"bench {work}", total=len(works) * len(threads))

        def say(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        def done() -> None:
            progress.advance(task)

        kept = heap.KEPT if measure.keep_memory else ""
        try:
            bench(works, threads, device, measure.seconds, measure.memory, out, say, done, kept)
        except ValueError as error:
            refuse(str(error))
    print(f"rows: {out}")
    if not measure.no_picture:
        for path in plot.draw(out, out.parent, plot.Kind.bars):
            print(f"picture: {path}")


def _shapes(texts: tuple[str, ...], letters: str) -> tuple[tuple[int, ...], ...]:
    """The sizes of each shape; leaves with a sentence if they are none."""
    found = []
    for text in texts:
        try:
            sizes = tuple(int(part) for part in text.split(","))
        except ValueError:
            sizes = ()
        if len(sizes) != len(letters) or min(sizes) < 1:
            wanted = f"{','.join(letters)}: {len(letters)} numbers above 0"
            refuse(f"--shape is {text!r}, expected {wanted}", code=2)
        found.append(sizes)
    return tuple(found)
