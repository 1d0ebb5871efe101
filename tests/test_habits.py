"""What a project that people join keeps in order: changelog, version, the forms and workflows of a public host."""

import datetime
import re
from pathlib import Path

import pytest
import yaml

import sslcollapse

ROOT = Path(__file__).parents[1]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def faults(changelog: str) -> list[str]:
    """What in a changelog is not as Keep a Changelog has it."""
    releases = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    found = [] if releases[:1] == ["[Unreleased]"] else ["the first section is not [Unreleased]"]
    dated = []
    for release in releases[1:]:
        known = re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", release)
        if not known:
            found.append(f"{release}: not [X.Y.Z] - YYYY-MM-DD")
            continue
        datetime.date.fromisoformat(known[4])
        dated.append((tuple(map(int, known.groups()[:3])), known[4]))
    if dated != sorted(dated, reverse=True):
        found.append("releases are not in order, the newest first")
    return found + [
        f"{section}: no section of a changelog"
        for section in re.findall(r"^### (.*)$", changelog, re.MULTILINE)
        if section not in SECTIONS
    ]


def test_the_changelog_is_kept_as_keep_a_changelog_says():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert faults(changelog) == []
    newest = re.search(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)
    assert newest is None or newest[1] == sslcollapse.__version__


@pytest.mark.parametrize(
    ("changelog", "fault"),
    [
        ("## [0.1.0] - 2026-01-01\n", "first section"),
        ("## [Unreleased]\n## 0.1.0\n", "not [X.Y.Z]"),
        ("## [Unreleased]\n## [0.1.0] - 2026-01-02\n## [0.2.0] - 2026-02-01\n", "not in order"),
        ("## [Unreleased]\n### News\n", "News"),
    ],
)
def test_a_changelog_that_is_not_kept_so_is_seen(changelog, fault):
    assert any(fault in found for found in faults(changelog))


def test_the_version_is_written_in_one_place_and_the_citation_repeats_it():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert 'version = { attr = "sslcollapse.__version__" }' in project
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == sslcollapse.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_workflow_runs_the_one_script_and_every_python_that_is_promised():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    assert any(step.get("run") == ".ci/run" for step in jobs["ci"]["steps"])
    matrix = jobs["versions"]["strategy"]["matrix"]
    assert matrix["python-version"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    lowest = re.search(r'requires-python = ">=(.*?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert matrix["python-version"][0] == lowest
    assert {"python-version": lowest, "dependencies": "oldest"} in matrix["include"]
    for step in jobs["versions"]["steps"]:
        if "old_versions" in step.get("run", ""):
            assert (ROOT / step["run"]).stat().st_mode & 0o111


def test_the_forms_ask_for_something_and_every_yaml_file_of_the_root_is_one():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in forms}
    assert {"fault", "method"} <= read.keys()
    for name, form in read.items():
        if name != "config":
            assert any(field.get("validations", {}).get("required") for field in form["body"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert {"ruff-check", "ruff-format", "mypy", "methods"} == {hook["id"] for hook in hooks}


def test_every_figure_of_the_log_stands_on_the_page_that_its_row_leads_to():
    rows = re.findall(r"^\|.*\]\(.*$", (ROOT / "docs/log.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 8
    for row in rows:
        pages = [(ROOT / "docs" / link).read_text(encoding="utf-8") for link in re.findall(r"\]\(([^)#]+)", row)]
        figures = re.findall(r"[+−-]?\d+\.\d+(?: ± \d+\.\d+| \[.*?\])?", row)
        assert figures
        text = "\n".join(pages).replace("−", "-")
        assert [figure for figure in figures if figure.replace("−", "-") not in text] == []
