"""A gallery: one JSON a checkpoint, one page drawn from them; and the tools that count and compare."""

import json
from pathlib import Path

import pytest
import torch

import sslcollapse
from sslcollapse.cli import main
from sslcollapse.rank.diagnose.gallery import BEGIN, END, PAGE, draw_page, read_entries, table_of
from sslcollapse.rank.diagnose.state_dict import TargetError
from tools.bench.diagnose import agreement
from tools.evidence.calibration import COLLAPSED_ONES, TRAINED, Sample, counts, into_page

GALLERY = Path(__file__).parents[3] / "docs/gallery"


def test_an_entry_is_written_by_a_command_and_the_page_is_drawn_from_all(tmp_path):
    torch.manual_seed(0)
    torch.save({"a.weight": torch.randn(30, 30)}, tmp_path / "good.pt")
    torch.save({"a.weight": torch.randn(30, 1) @ torch.randn(1, 30)}, tmp_path / "low.pt")
    for name in ("good", "low", "good"):
        words = ["diagnose", str(tmp_path / f"{name}.pt"), "--gallery", str(tmp_path / "g"), "--fail-on", "never"]
        assert main(words) == 0
    entries = read_entries(tmp_path / "g")
    assert [entry["verdict"] for entry in entries] == ["healthy", "collapsed"]  # the second "good" replaced the first
    assert all(str(tmp_path) not in json.dumps(entry) or tmp_path.name in entry["name"] for entry in entries)
    assert entries[0]["layers"][0]["share"] == pytest.approx(
        sslcollapse.diagnose(tmp_path / "good.pt").rows[0].share, abs=1e-3
    )
    page = (tmp_path / "g" / PAGE).read_text()
    assert page.count("| healthy |") == page.count("| collapsed |") == 1


def test_an_entry_that_is_none_and_a_page_without_marks_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"format": 1, "name": "x"}')
    with pytest.raises(TargetError, match=r"x\.json: no entry of a gallery \(KeyError: 'command'\)"):
        read_entries(tmp_path)
    (tmp_path / "x.json").unlink()
    (tmp_path / PAGE).write_text("mine")
    with pytest.raises(TargetError, match="has no lines"):
        draw_page(tmp_path)
    assert (tmp_path / PAGE).read_text() == "mine"


def test_the_gallery_of_the_docs_is_drawn_from_its_entries():
    text = (GALLERY / PAGE).read_text()
    assert text.split(BEGIN)[1].split(END)[0].strip() == table_of(read_entries(GALLERY)).strip()


def sample(state: str, weight: torch.Tensor) -> Sample:
    return Sample("x", state, None, sslcollapse.diagnose({"a.weight": weight}))


def test_a_calibration_counts_false_alarms_and_misses():
    torch.manual_seed(0)
    full, low = torch.randn(40, 40), torch.randn(40, 2) @ torch.randn(2, 40)
    record = counts([sample(TRAINED, full), sample(TRAINED, low), sample(COLLAPSED_ONES, low)])
    assert record["networks"][TRAINED] == {"networks": 2, "healthy": 1, "degrading": 0, "collapsed": 1}
    assert {(row["false_alarms"], row["misses"]) for row in record["sweep"]} == {(1, 0)}
    page = into_page("a\n<!-- calibration: begin -->\nold\n<!-- calibration: end -->\nb", record)
    assert page.startswith("a\n<!-- calibration: begin -->\n| networks |")
    assert "old" not in page


def test_agreement_is_of_layers_that_both_name():
    ours = {"m": {"a": (2.0, 3.0), "b": (1.0, float("nan"))}}
    theirs = {"m": {"a": (2.0, 4.0), "b": (2.0, 3.0), "c": (1.0, 1.0)}}
    found = agreement(ours, theirs)
    assert found["layers"] == 2
    assert found["stable_rank"] == {
        "compared": 2,
        "within_1_percent": 1,
        "median_relative_difference": 0.25,
        "largest_relative_difference": 0.5,
        "apart": ["m b"],
    }
    assert found["alpha"]["compared"] == 1


@pytest.mark.parametrize("wrong", [dict(verdict="<b>"), dict(parameters="x"), dict(layers=[{}]), dict(layers=5)])
def test_an_entry_with_values_of_another_kind_is_named(tmp_path, wrong):
    whole = dict(format=1, name="x", command="", verdict="healthy", counts={}, parameters=1, covered=1, layers=[])
    (tmp_path / "x.json").write_text(json.dumps(whole | wrong))
    with pytest.raises(TargetError, match=r"x\.json: no entry of a gallery"):
        read_entries(tmp_path)
