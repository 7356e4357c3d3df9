"""Makes every mutant, runs the tests that should notice it, and reports who lives.

    python -m python_tests.mutants                    all of them; kernels are compiled first
    python -m python_tests.mutants --only python      those in Python: a few minutes
    python -m python_tests.mutants zoneout lstm       those with one of these words in their names
    python -m python_tests.mutants --list             names, files and tests

First the tests run as the code is, and must pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .catalogue import MUTANTS, check
from .mutant import Mutant, NoVerdict, Stale
from .tree import ROOT, Tree


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m python_tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="parts of names; all mutants by default")
    parser.add_argument("--only", choices=("python", "kernels"), help="one half of them")
    parser.add_argument("--list", action="store_true", help="show them and do nothing")
    parser.add_argument("--jobs", type=int, default=2, help="compilers side by side")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build/mutants", help="where the copies are made"
    )
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[Mutant]:
    found = [
        mutant
        for mutant in MUTANTS
        if args.only is None or mutant.compiled == (args.only == "kernels")
    ]
    words = [word.lower() for word in args.words]
    if words:
        found = [m for m in found if any(word in m.name.lower() for word in words)]
    if not found:
        raise SystemExit(f"no mutant's name has any of {', '.join(args.words)} in it")
    return found


def tree_for(compiled: bool, folder: Path, jobs: int) -> Tree:
    """A copy of the checkout; with all mutants of the kernels in it, for those."""
    if not compiled:
        return Tree(folder / "python")
    tree = Tree(folder / "kernels", [mutant for mutant in MUTANTS if mutant.compiled])
    start = time.monotonic()
    tree.build(jobs)
    print(f"kernels with all their mutants: {time.monotonic() - start:.0f} s to compile")
    return tree


def hunt(tree: Tree, mutants: list[Mutant]) -> list[str]:
    """Run them, one line each; the names of those who live."""
    from .run import made_in, run

    every = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    right = run(tree, every, limit=1800)
    if right.killers:
        failed = "\n".join(right.killers)
        raise NoVerdict(f"{failed}\nfail without any mutant; {tree.folder}/log.txt says how")
    print(f"{len(every)} selections of tests pass without mutants: {right.seconds:.0f} s")
    width = max(len(mutant.name) for mutant in mutants)
    alive = []
    for mutant in mutants:
        with made_in(tree, mutant) as code:
            found = run(tree, mutant.tests, code)
        verdict = found.killers[0] if found.killers else "ALIVE"
        print(f"{found.seconds:6.1f} s  {mutant.name:<{width}}  {verdict}", flush=True)
        if not found.killers:
            alive.append(mutant.name)
    return alive


def main() -> None:
    args = arguments()
    mutants = chosen(args)
    if args.list:
        for mutant in mutants:
            print(f"{mutant.name}\n    {mutant.file}: {', '.join(mutant.tests)}")
        return
    alive = []
    try:
        check(MUTANTS)
        for compiled in (False, True):
            group = [mutant for mutant in mutants if mutant.compiled == compiled]
            if group:
                alive += hunt(tree_for(compiled, args.folder.resolve(), args.jobs), group)
    except (Stale, NoVerdict) as words:
        sys.exit(str(words))
    if alive:
        sys.exit(f"{len(alive)} of {len(mutants)} mutants live: {'; '.join(alive)}")
    print(f"{len(mutants)} mutants, none lives")


if __name__ == "__main__":
    main()
