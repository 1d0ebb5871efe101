"""Try very many odd recipes, overrides, grids and records; print what became of them; fail at any traceback."""

import argparse
import sys
import traceback
from collections import Counter
from pathlib import Path

# The repository instead of this folder, so that a clone needs no installation and no tool hides a package.
sys.path.pop(0)
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> int:
    """Run the inputs, print a table of outcomes and every traceback; 1 where there was one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, metavar="N", help="how many in all (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the inputs (default: 0)")
    parser.add_argument("--kind", metavar="KIND", help="one kind of input (default: all, in equal parts)")
    options = parser.parse_args()

    import fuzz_attempts
    import fuzz_inputs
    from hypothesis import given, seed, settings

    kinds = [options.kind] if options.kind else list(fuzz_inputs.INPUTS)
    counts: Counter[tuple[str, str]] = Counter()
    faults: dict[str, str] = {}
    for kind in kinds:
        attempt, strategy = fuzz_inputs.INPUTS[kind]

        @seed(options.seed)
        @settings(
            max_examples=-(-options.inputs // len(kinds)),
            **fuzz_inputs.SETTINGS,
        )
        @given(strategy)
        def every(arguments):
            found = fuzz_attempts.outcome(attempt, *arguments)  # noqa: B023  # called within this turn of the loop
            counts[kind, found.kind] += 1  # noqa: B023
            if found.error is not None:
                trace = traceback.format_exception(found.error)
                text = f"{fuzz_attempts.shown(kind, arguments)}\n{''.join(trace[-8:])}"  # noqa: B023
                faults.setdefault("".join(trace[-2:]), text)

        every()
        print(f"{kind}: {sum(n for (k, _), n in counts.items() if k == kind)} inputs", file=sys.stderr, flush=True)
    outcomes = sorted({outcome for _, outcome in counts})
    print("| input | " + " | ".join(outcomes) + " | all |")
    print("| --- |" + " ---: |" * (len(outcomes) + 1))
    for kind in kinds:
        row = [counts[kind, outcome] for outcome in outcomes]
        print(f"| {kind} | " + " | ".join(map(str, row)) + f" | {sum(row)} |")
    for text in faults.values():
        print(f"\n{text}")
    print(f"\n{sum(counts.values())} inputs, {sum(n for (_, o), n in counts.items() if o == 'traceback')} tracebacks")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
