import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sslcollapse.ablation.claims.forest import forest
from sslcollapse.ablation.claims.overview import claims_table, cut, decided, refresh_overview

RESULTS = Path(__file__).parents[2] / "docs/results"
TEST = {
    "check": "accuracy rises", "kind": "difference", "metric": "evaluation.public.test_accuracy", "group": "Cora",
    "cell": "lr=0.2", "expect": "positive", "margin": 0.0, "unit": "points of %", "estimate": 2.0, "low": 1.0,
    "high": 3.0, "n": 5, "outcome": "supported", "expected": "> 0",
}  # fmt: skip


def claim(results, folder, *tests, number=1, verdict="supported", statement="It helps.", runs=(10, 10)):
    (results / folder).mkdir(parents=True)
    made = {"number": number, "statement": statement, "verdict": verdict, "tally": "", "tests": tests}
    made["runs"] = dict(zip(("finished", "total"), runs, strict=True))
    (results / folder / "claim.json").write_text(json.dumps(made))


def cells(results):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in claims_table(results)[2:]]


def test_no_cell_of_the_table_of_claims_is_over_60_letters_long(tmp_path):
    long = dict(TEST, group="a group " * 20, estimate=-123.4, low=-1234.5, high=1234.5)
    claim(tmp_path, "a" * 30, long, dict(long, estimate=99.9), statement="word " * 40, verdict="not supported")
    (tmp_path / "readers.json").write_text(json.dumps({"a" * 30: {"user": [{"say": "word " * 40}]}}))
    (row,) = cells(tmp_path)
    assert max(map(len, row)) <= 60
    text = (RESULTS / "README.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) > 15
    assert [cell for line in table for cell in line.split("|") if len(cell.strip()) > 60] == []


def test_a_line_has_the_smallest_and_the_largest_effect_of_the_first_check_with_their_intervals(tmp_path):
    other = dict(TEST, check="rank rises", metric="rank.representation.effective_rank", estimate=9.0, n=4)
    claim(tmp_path, "a", TEST, dict(TEST, estimate=5.5, low=-0.001, high=12.34, n=7), other)
    (row,) = cells(tmp_path)
    assert row[:5] == ["1", "It helps.", "**supported**, 3 of 3 tests", row[3], "4–7"]
    assert row[3] == "accuracy: +2.00 [+1.00, +3.00] to +5.50 [+0.00, +12.3]"


def test_what_a_claim_means_for_a_user_follows_its_outcomes(tmp_path):
    words = [
        {"when": {"accuracy rises": "supported", "verdict": "supported"}, "say": "use it"},
        {"when": {"accuracy rises": "contradicted"}, "say": "leave it"},
    ]
    (tmp_path / "readers.json").write_text(json.dumps({name: {"user": words} for name in "abcd"}))
    claim(tmp_path, "a", TEST, TEST)
    claim(tmp_path, "b", dict(TEST, outcome="contradicted"), number=2, verdict="not supported")
    claim(tmp_path, "c", TEST, dict(TEST, outcome="contradicted"), number=3, verdict="interim", runs=(1, 2))
    claim(tmp_path, "d", dict(TEST, outcome="inconclusive"), number=4, verdict="inconclusive at n = 5")
    assert [row[6] for row in cells(tmp_path)] == [
        "use it",
        "leave it",
        "open until its runs are there",
        "open at so many seeds",
    ]


def test_words_for_readers_are_of_grids_and_checks_that_exist():
    for folder, words in json.loads((RESULTS / "readers.json").read_text()).items():
        made = json.loads((RESULTS / folder / "claim.json").read_text())
        known = {test["check"]: "" for test in made["tests"]} | {"verdict": ""}
        for each in words.get("user", []):
            assert each["say"] == cut(each["say"])
            assert set(each["when"]) <= set(known), folder
        assert words["claim"] == cut(words["claim"])


def test_the_picture_has_a_mark_and_a_word_for_each_decided_test_beside_its_colour(tmp_path):
    (tmp_path / "README.md").write_text("<!-- claims:begin --><!-- claims:end -->")
    contradicted = dict(TEST, outcome="contradicted", estimate=-150.0, low=-200.0, high=-100.0, group="<b> & c")
    rank = dict(TEST, unit="", kind="slope", along="x", margin=400.0, metric="rank.representation.effective_rank")
    claim(tmp_path, "a", TEST, contradicted, dict(TEST, outcome="inconclusive"))
    claim(tmp_path, "b", rank, verdict="interim")
    refresh_overview(tmp_path)
    assert (
        "![Decided tests of all claims: effects with their corrected intervals](claims.svg)"
        in (tmp_path / "README.md").read_text()
    )
    text = (tmp_path / "claims.svg").read_text()
    root = ElementTree.fromstring(text)
    rows = root.findall(".//{*}g")
    words = [" ".join(each.text for each in row.findall("{*}text")) for row in rows]
    assert len(rows) == 3
    assert words == [
        "1  accuracy rises: Cora +2.00 [+1.00, +3.00]  n = 5 supported",
        "1  accuracy rises: <b> & c −150 [−200, −100]  n = 5 contradicted",
        "1  accuracy rises: Cora, lr=0.2 +2.00 [+1.00, +3.00]  n = 5 supported, so far",
    ]
    assert [row.findall("{*}circle") != [] for row in rows] == [True, False, True]
    assert "stroke-dasharray" in ElementTree.tostring(rows[2]).decode()
    assert forest(decided(tmp_path)) == text, "the same for the same tests"


def test_the_interval_of_a_row_lies_on_the_axis_where_its_numbers_are(tmp_path):
    text = forest([{**TEST, "number": 1, "interim": False}, {**TEST, "number": 2, "interim": False, "estimate": 1.0}])
    (first, second) = ElementTree.fromstring(text).findall(".//{*}g")
    line = first.find("{*}line")
    mark, other = (float(row.find("{*}circle").get("cx")) for row in (first, second))
    assert float(line.get("x1")) == pytest.approx(other)
    assert other < mark < float(line.get("x2"))
    ticks = dict(re.findall(r'<text x="([\d.]+)" [^>]*>([\d−.]+)</text>', text))
    at = {label: float(x) for x, label in ticks.items()}
    assert at["1"] == pytest.approx(other)
    assert at["3"] == pytest.approx(float(line.get("x2")))
    band = first.find("{*}rect")
    assert float(band.get("x")) == pytest.approx(at["0"])


def test_without_decided_tests_there_is_no_picture(tmp_path):
    (tmp_path / "README.md").write_text("<!-- claims:begin --><!-- claims:end -->")
    (tmp_path / "claims.svg").write_text("old")
    claim(tmp_path, "a", dict(TEST, outcome="inconclusive"), verdict="inconclusive at n = 5")
    refresh_overview(tmp_path)
    assert not (tmp_path / "claims.svg").exists()
    assert "claims.svg" not in (tmp_path / "README.md").read_text()


def test_the_picture_of_the_repository_is_that_of_its_claims():
    assert (RESULTS / "claims.svg").read_text() == forest(decided(RESULTS))
