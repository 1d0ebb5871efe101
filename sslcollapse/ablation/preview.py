"""What an ablation would run."""

from __future__ import annotations

from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.tables.notation import heads, labels, markdown


def preview(ablation: Ablation, records: Records) -> list[str]:
    """Lines: a table of the cells with the seeds that are recorded, the number of runs, and what the claim tests."""
    titles = heads(ablation)
    done = {cell.hash: len(records.of([cell], ablation.seeds)) for cell in ablation.cells}
    rows = [[*labels(cell, titles), f"{done[cell.hash]} of {ablation.seeds}", cell.hash] for cell in ablation.cells]
    total, finished = len(ablation.cells) * ablation.seeds, sum(done.values())
    lines = markdown([*titles.values(), "seeds", "hash"], rows)
    lines.append(f"{ablation.name}: {total} runs, {finished} finished, {total - finished} to do")
    lines += aside_lines(ablation, records)
    if ablation.claim is not None:
        for check in ablation.claim.checks:
            count = sum(test.check is check for test in ablation.tests)
            lines.append(f"claim {ablation.claim.number}, {check.name}: {count} test{'s' if count > 1 else ''}")
    return lines


def aside_lines(ablation: Ablation, records: Records) -> list[str]:
    """A line for each reason why recorded runs of the cells' hashes do not count."""
    return [
        f"set aside {count} recorded run{'s' if count > 1 else ''} of the same hash: {why}"
        for why, count in records.set_aside(ablation.cells, ablation.seeds).items()
    ]
