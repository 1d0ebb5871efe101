"""The command: what its paths are, and which page they make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sslcollapse.core.errors import RunError
from sslcollapse.report.ablation_page import Recorded, ablation_page, from_file, from_folder
from sslcollapse.report.page import write_page
from sslcollapse.report.plot import slug
from sslcollapse.report.run_page import run_page
from sslcollapse.report.runs import is_run, read_run

REPORTS = Path("reports")
WANTED = "a run directory, a folder of run directories, an ablation file, or a results folder with runs.jsonl"


def write_report(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    runs: Path = Path("runs"),
    results: Path = Path("docs/results"),
) -> Path:
    """Write the page of one run, of several runs or of an ablation; return its ``index.html``.

    Args:
        paths: run directories (or folders of them), or one ablation: its file or its results folder.
        out: folder of the page; by default ``reports/<name>``.
        runs: where run directories of an ablation are looked for.
        results: where the records of an ablation file are.

    Raises:
        RunError: a path is none of these, a file of it cannot be read, the page cannot be written.
        RecipeError: an ablation file is wrong.
    """
    ablations = [path for path in paths if _records_of(path) is not None or path.suffix == ".py"]
    if ablations and len(paths) > 1:
        raise RunError(f"{ablations[0]} is an ablation and has a page of its own; give it alone, or give runs only")
    if ablations:
        recorded = _ablation(paths[0], results)
        return write_page(ablation_page(recorded, runs), out or REPORTS / recorded.ablation.name)
    directories = list(dict.fromkeys(run for path in paths for run in _runs(path)))
    found = [read_run(path) for path in directories]
    name = found[0].name if len(found) == 1 else f"{found[0].recipe['name']} and {len(found) - 1} more"
    return write_page(run_page(found), out or REPORTS / (slug(name) or "runs"))


def _ablation(path: Path, results: Path) -> Recorded:
    folder = _records_of(path)
    if folder is not None:
        return from_folder(folder)
    if not path.is_file():
        raise RunError(f"{path}: there is no such file; expected {WANTED}")
    return from_file(path, results)


def _records_of(path: Path) -> Path | None:
    """The results folder that a path is or is in."""
    if path.name == "runs.jsonl" and path.is_file():
        return path.parent
    return path if (path / "runs.jsonl").is_file() else None


def _runs(path: Path) -> list[Path]:
    if is_run(path):
        return [path]
    below = sorted(found.parent for found in path.glob("**/seed*/recipe.json")) if path.is_dir() else []
    if not below:
        what = "neither a run nor a folder of runs" if path.exists() else "there is no such file or folder"
        raise RunError(f"{path}: {what}; expected {WANTED}")
    return below
