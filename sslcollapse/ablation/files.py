"""Everything that is written beside an ablation's records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.overview import refresh_overview
from sslcollapse.ablation.claims.verdict import verdict_json
from sslcollapse.ablation.grid import Ablation
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.tables.latex import table_latex
from sslcollapse.ablation.tables.page import page, table_csv


def write_files(folder: Path, ablation: Ablation, records: Records, failures: Mapping[str, str], command: str) -> None:
    """``README.md``, ``table.csv``, ``table.tex`` and, of a claim, ``claim.json``; then the overview of all claims.

    Args:
        folder: of the ablation's records; the overview is in the folder above.
        ablation: what was planned.
        records: what is finished.
        failures: a run's name → its error.
        command: what makes the page.
    """
    from sslcollapse.core.files import write_atomic

    texts = {
        "README.md": page(ablation, records, failures, command),
        "table.csv": table_csv(ablation, records),
        "table.tex": table_latex(ablation, records, failures),
    }
    if ablation.claim is not None:
        texts["claim.json"] = verdict_json(judge(ablation, records))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    if ablation.claim is None:
        (folder / "claim.json").unlink(missing_ok=True)
    refresh_overview(folder.parent)
