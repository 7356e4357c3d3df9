"""Who imports whom: no circle in the package, and nothing of a recipe with `import fastseq`."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import recipe_cases

import fastseq

PACKAGE = Path(fastseq.__file__).parent
HEAVY = ("fastseq.recipes", "fastseq.commands", "fastseq.models", "fastseq.transfer", "lightning")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# A stub stands for a compiled file.
FILES = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]
TREES = {module_name(path): ast.parse(path.read_text()) for path in FILES}


def imported(name: str) -> set[str]:
    """The files of the package that a file of it imports, for type checkers alone among them."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute here"
            # A name in a package is a file of it, or something that its __init__ defines.
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            files = whole & TREES.keys()
            found |= files if len(files) == len(whole) else files | {str(node.module)}
    return (found & TREES.keys()) - {name}


def test_no_circle() -> None:
    graph = {name: imported(name) for name in TREES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_importing_fastseq_loads_no_recipe() -> None:
    code = "import sys, fastseq; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=recipe_cases.environment(),
        cwd=Path(__file__).parent,
        check=True,
    )
    loaded = result.stdout.split()
    assert "fastseq.nn" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []
