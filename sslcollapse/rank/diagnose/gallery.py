"""A gallery of checkpoints: a small JSON each, and one page that is drawn from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import printable
from sslcollapse.rank.diagnose.diagnosis import Diagnosis
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.verdicts import VERDICTS

PAGE = "README.md"
BEGIN, END = "<!-- gallery: begin -->", "<!-- gallery: end -->"
FORMAT = 1
"""Of an entry; a page is drawn of entries of this format alone."""

_HEAD = f"""# Gallery

{BEGIN}
{END}
"""


def add_entry(diagnosis: Diagnosis, target: str, folder: Path, *, pretrained: bool = False) -> Path:
    """Write the entry of a checkpoint, in place of an older one of the same target, and draw the page anew.

    Args:
        diagnosis: of its weights.
        target: what was diagnosed; of a path its last two parts are kept.
        folder: of the gallery.
        pretrained: whether published weights were read.

    Raises:
        TargetError: an entry in the folder that is none.
    """
    name = _name(target)
    words = ["sslcollapse", "diagnose", target if ":" in target else "PATH", *(["--pretrained"] if pretrained else [])]
    entry = {
        "format": FORMAT,
        "name": name,
        "command": " ".join([*words, "--gallery", "docs/gallery"]),
        "verdict": diagnosis.verdict,
        "counts": {verdict: diagnosis.count(verdict) for verdict in VERDICTS},
        "parameters": diagnosis.coverage.parameters,
        "covered": round(diagnosis.coverage.share, 4),
        "layers": [
            {
                "name": row.layer,
                "kind": row.kind,
                "shape": list(row.shape),
                "effective_rank": _short(row.effective_rank),
                "share": _short(row.share),
                "stable_rank": _short(row.stable_rank),
            }
            for row in diagnosis.rows
            if row.part == "weight"
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', name).strip('_.')}{'-pretrained' if pretrained else ''}.json"
    write_atomic(path, (json.dumps(entry, indent=1) + "\n").encode())
    draw_page(folder)
    return path


def _name(target: str) -> str:
    """Of a name itself; of a run its recipe's and how long it was trained; of another path its last two parts."""
    if ":" in target:
        return target
    try:
        recipe = json.loads((Path(target) / "recipe.json").read_text(encoding="utf-8"))
        return f"recipe {recipe['name']}, {recipe['train']['steps']:,} steps, seed {recipe['seed']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "/".join(Path(target).parts[-2:])


def read_entries(folder: Path) -> list[dict[str, Any]]:
    """Every entry of a gallery, by name.

    Raises:
        TargetError: a JSON file that is no entry; says which, and what it lacks.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["format"] != FORMAT:
                raise ValueError(f"format {entry['format']!r}, and not {FORMAT}")
            for key in ("name", "command", "verdict", "counts", "parameters", "covered", "layers"):
                entry[key]
            if entry["verdict"] not in VERDICTS:
                raise ValueError(f"verdict {entry['verdict']!r}, not one of {', '.join(VERDICTS)}")
            entry["name"] = str(entry["name"])
            table_of([entry])  # whatever has another type is found out here
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TargetError(
                f"{path}: no entry of a gallery ({type(error).__name__}: {error}); make it with --gallery"
            ) from None
        found.append(entry)
    return sorted(found, key=lambda entry: entry["name"])


def draw_page(folder: Path) -> Path:
    """Write the table between the marks of the folder's page, from its entries."""
    path = folder / PAGE
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    if BEGIN not in text or END not in text:
        raise TargetError(f"{path}: has no lines {BEGIN} and {END}, between which the table goes")
    before, rest = text.split(BEGIN, 1)
    write_atomic(path, f"{before}{BEGIN}\n{table_of(read_entries(folder))}\n{END}{rest.split(END, 1)[1]}".encode())
    return path


def table_of(entries: list[dict[str, Any]]) -> str:
    """One row a checkpoint: the median share of a random matrix's rank, the lowest and its layer, and the verdict."""
    lines = [
        "| checkpoint | parameters | layers | median of random | lowest | at | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        shares = [(layer["share"], layer["name"]) for layer in entry["layers"] if layer["share"] is not None]
        lowest, where = min(shares, default=(0.0, "none"))
        middle = median(share for share, _ in shares) if shares else 0.0
        lines.append(
            f"| `{_cell(entry['name'])}` | {entry['parameters']:,} | {len(entry['layers'])} | {middle:.2f} "
            f"| {lowest:.2f} | `{_cell(where)}` | {entry['verdict']} |"
        )
    return "\n".join(lines)


def _cell(text: str) -> str:
    return printable(str(text)).replace("|", "¦").replace("`", "'")


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if abs(value) < float("inf") else None
