"""The numbers of the README are those of the files in results/, which commands wrote."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

HERE = Path(__file__).resolve().parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")
RESULTS = HERE / "results"


def records(deletion: float) -> list[dict]:
    lines = (RESULTS / "simclr_text" / "runs.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["recipe"]["domain"]["views"]["word_deletion"] == deletion]


def over_seeds(found: list[dict], place: str) -> str:
    columns = []
    for probe in ("knn", "public"):
        values = [100 * record[place][probe]["test_accuracy"]["mean"] for record in found]
        columns.append(f"{mean(values):.2f} ± {stdev(values):.2f}")
    return f"{' | '.join(columns)} | {len(found)}"


def accuracy_rows() -> list[str]:
    bag = json.loads((RESULTS / "bag_of_words.json").read_text())["evaluation"]
    counted = " | ".join(f"{100 * bag[probe]['test_accuracy']['mean']:.2f}" for probe in ("knn", "public"))
    rows = [
        f"| untrained encoder | {over_seeds(records(0.0), 'untrained')} |",
        f"| SimCSE, `simclr_text` | {over_seeds(records(0.0), 'evaluation')} |",
    ]
    if len(records(0.3)) > 1:
        rows.append(f"| word deletion, `simclr_deletion_text` | {over_seeds(records(0.3), 'evaluation')} |")
    return [*rows, f"| bag of words, no network | {counted} | – |"]


def corpus_rows() -> list[str]:
    corpus = json.loads((RESULTS / "corpus.json").read_text())
    rows = [
        f"| {name} | {part['train']} | {part['validation']} | {part['test']} |"
        for name, part in corpus["classes"].items()
    ]
    totals = (sum(part[name] for part in corpus["classes"].values()) for name in ("train", "validation", "test"))
    return [*rows, f"| all | {' | '.join(f'{total:,}' for total in totals)} |"]


def rank_rows() -> list[str]:
    table = (RESULTS / "simclr_text" / "layers.md").read_text(encoding="utf-8").split("## ")[1]
    return [row for row in table.splitlines() if "attention.qkv" in row or "| representation" in row]


@pytest.mark.parametrize("rows", [accuracy_rows, corpus_rows, rank_rows], ids=lambda rows: rows.__name__)
def test_numbers_of_the_readme_are_those_of_the_files(rows):
    found = rows()
    assert len(found) >= 3
    assert [row for row in found if row not in README.splitlines()] == []


def test_versions_and_device_of_the_readme_are_those_of_the_records():
    first = records(0.0)[0]
    assert all(record["device"] == first["device"] for record in records(0.0))
    assert first["device"] in README
    assert f"torch {first['torch']}" in README
    assert json.loads((RESULTS / "bag_of_words.json").read_text())["versions"]["tokenizers"] in README
    assert json.loads((RESULTS / "corpus.json").read_text())["source"].partition("(")[2].rstrip(")") in " ".join(
        README.split()
    )


def test_lines_of_the_domain_that_the_readme_states():
    for name in ("domain", "views"):
        count = len((HERE / "sslcollapse_text" / f"{name}.py").read_text(encoding="utf-8").splitlines())
        assert f"`{name}.py` | {count} |" in README.replace("sslcollapse_text/", "")


def test_the_change_of_rank_by_training_is_that_of_the_recorded_diagnosis():
    layers = json.loads((RESULTS / "diagnosis_simclr_text_seed0.json").read_text())["layers"]
    ranks = {layer["name"]: layer["output"]["effective_rank"] / layer["output"]["reference"] for layer in layers}
    first, second = (ranks[f"layers.{depth}.attention.qkv.v"] for depth in (0, 1))
    assert f"by {first:.2f} in the first layer and by {second:.2f} in the second" in " ".join(README.split())
