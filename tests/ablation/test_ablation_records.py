import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from sslcollapse.ablation.records import Records, make_record
from sslcollapse.ablation.statistics.intervals import Difference, paired_difference, summarise
from sslcollapse.ablation.tables.columns import Column
from sslcollapse.ablation.tables.page import best_by_validation
from sslcollapse.ablation.values import Cell
from sslcollapse.core.errors import RunError
from sslcollapse.runs.quantities import RECORD, lacking, lookup


def record(hash="a", seed=0, **more):
    return {"hash": hash, "seed": seed, "evaluation": {}, "rank": {}, **more}


def test_paired_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7))
    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.n == 7


def test_only_equal_seeds_are_paired():
    assert paired_difference({0: 5.0, 1: 7.0, 9: 100.0}, {1: 4.0, 0: 4.0, 5: -100.0})[0:3:2] == (2.0, 2)
    assert paired_difference({0: 5.0}, {0: 4.0}) == Difference(1.0, None, 1)
    assert paired_difference({0: 5.0}, {1: 4.0}) is None


def test_standard_deviation_has_ddof_1():
    values = [1.0, 2.0, 4.0]
    assert summarise(values)[1] == pytest.approx(np.std(values, ddof=1))
    assert summarise([1.0]).std is None


def test_records_survive_reopening_and_duplicates_are_ignored(tmp_path):
    path = tmp_path / "x" / "runs.jsonl"
    records = Records(path)
    records.add(record(value=1))
    records.add(record(value=2))
    records.add(record(seed=1))
    path.write_text(path.read_text() + json.dumps(record(value=3)) + "\n")
    again = Records(path)
    assert len(again) == 2
    assert ("a", 1) in again
    again.add(record(seed=2))
    assert json.loads(path.read_text().splitlines()[0])["value"] == 1


def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_record(tmp_path):
    path = tmp_path / "runs.jsonl"
    torn = json.dumps(record()) + "\n" + '{"hash": "a", "se'
    path.write_text(torn)
    records = Records(path)
    assert len(records) == 1
    assert path.read_text() == torn, "reading writes nothing"
    records.add(record(seed=1))
    assert path.read_text() == "".join(json.dumps(record(seed=seed)) + "\n" for seed in (0, 1))


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(record()))
    records = Records(path)
    assert len(records) == 1
    records.add(record(seed=1))
    assert [each["seed"] for each in Records(path)] == [0, 1]


def test_a_full_disk_is_an_error_and_loses_no_record(tmp_path):
    path = tmp_path / "runs.jsonl"
    line = json.dumps(record()) + "\n"
    script = f"""
import resource, signal
from pathlib import Path
from sslcollapse.ablation.records import Records
from sslcollapse.core.errors import RunError
from sslcollapse.runs.quantities import RECORD, lacking
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(line) * 3 // 2}, resource.RLIM_INFINITY))
records = Records(Path({str(path)!r}))
first = {record()!r}
records.add(first)
try:
    records.add({{**first, "seed": 1}})
except RunError as error:
    print(error, ("a", 1) in records)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
records.add({{**first, "seed": 2}})
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert f"{path}: a record cannot be written (File too large)" in said
    assert said.strip().endswith("False")
    assert [each["seed"] for each in Records(path)] == [0, 2]


def test_a_damaged_result_is_named_with_what_to_do(tmp_path):
    (tmp_path / "result.json").write_text("")
    with pytest.raises(RunError, match=r"result.json: damaged \(.*\); delete .*, and the same command makes this run"):
        make_record(Cell("a", tmp_path, {}, {}, "a"), [], tmp_path)


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"hash": "a", "se\n' + json.dumps(record()) + "\n")
    with pytest.raises(RunError, match="line 1: not a record"):
        Records(path)


def test_paths_find_keys_that_have_dots():
    layers = {"layers": {"convs.0": {"weight": {"effective_rank": 3.0}}, "convs.0.lin": {"weight": 1.0}}}
    assert lookup(layers, "layers.convs.0.weight.effective_rank") == 3.0
    assert lookup(layers, "layers.convs.0.lin.weight") == 1.0
    assert lookup(layers, "layers.convs.1") is None


def test_validation_chooses_the_cell_whatever_the_test_metric_says():
    def run(hash, seed, validation, test):
        metrics = {"validation_accuracy": {"mean": validation}, "test_accuracy": {"mean": test}}
        return record(hash, seed, evaluation={"public": metrics})

    records = [run("a", 0, 0.9, 0.1), run("a", 1, 0.5, 0.1), run("b", 0, 0.8, 0.0), run("b", 1, 0.8, 0.0)]
    best = best_by_validation([*records, run("c", 0, 0.1, 0.99), run("c", 1, 0.1, 0.99)], "public")
    assert (best.record["hash"], best.mean, best.n) == ("b", 0.8, 2)
    best = best_by_validation([*records, run("c", 0, 0.85, 0.0)], "public")
    assert (best.record["hash"], best.mean, best.n) == ("a", 0.9, 1), "compared over the seeds that all have"
    assert best_by_validation(records, "random") is None


def test_the_fraction_of_attainable_rank_is_found_where_both_are_recorded():
    record = {"rank": {"representation": {"effective_rank": 32.0, "attainable": 128}, "views": {"overlap": 0.5}}}
    assert lookup(record, "rank.representation.effective_rank_fraction") == 0.25
    assert lookup(record, "rank.views.effective_rank_fraction") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "it has no 'hash'"),
        ("[]", r"it is \[\] and no object"),
        ('{"hash": "a", "seed": 0}', "it has no 'evaluation'"),
        ('{"hash": ["a"], "seed": 0, "evaluation": {}, "rank": {}}', r"its 'hash' is \['a'\]"),
        ('{"hash": "a", "seed": true, "evaluation": {}, "rank": {}}', "its 'seed' is True"),
        ('{"hash": "a", "seed": 0, "evaluation": {"p": 1}, "rank": {}}', "its 'evaluation' has 1 where a dict belongs"),
        ('{"hash": "a", "seed": 0, "evaluation": {}, "rank": {"layers": []}}', r"its 'rank' has \[\] for 'layers'"),
        (
            '{"hash": "a", "seed": 0, "evaluation": {}, "rank": {"layers": {"l": {"weight": {"attainable": 1}}}}}',
            "its 'rank' has {'attainable': 1} for 'l weight'",
        ),
        ('{"hash": "a", "seed": 0, "evaluation": {}, "rank": {}, "seconds": "long"}', "its 'seconds' are 'long'"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_record_is_named_with_what_it_lacks(tmp_path, line, message):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(record()) + "\n" + line + "\n")
    with pytest.raises(RunError, match=rf"runs.jsonl, line 2: not a record of a run \({message}\); restore or delete"):
        Records(path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"hash": "a"}', "[" * 100_000])
def test_a_result_that_lacks_something_is_named_with_what_to_do(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(RunError, match=r"result.json: damaged \(.*\); delete .*, and the same command makes this run"):
        make_record(Cell("a", tmp_path, {}, {}, "a"), [], tmp_path)


def test_numbers_too_large_for_a_float_are_no_ranks():
    huge = {"effective_rank": 10**400, "attainable": 8}
    assert "its 'rank'" in lacking(record(rank={"representation": huge}), RECORD)
    assert Column("seconds.training", "", "").by_seed([record(seconds={"training": 10**400})]) == {}
