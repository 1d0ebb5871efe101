import dataclasses
import json
import shutil

import pytest

from sslcollapse.ablation.claims.judge import judge, outcome
from sslcollapse.ablation.claims.overview import claims_table
from sslcollapse.ablation.files import write_files
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import slope, student

METRIC = 'metric="evaluation.public.test_accuracy", '
NOISE = (0.004, -0.003, 0.001, -0.002, 0.0, 0.003, -0.004, 0.002)


class Grid:
    """An ablation of learning rates by widths with records of given accuracies; nothing is trained."""

    def __init__(self, workspace, *checks, seeds=8, note=""):
        claim = (
            f'dict(number=4, statement="Faster is better", note="{note}", checks=[{", ".join(map(self.dict, checks))}])'
        )
        target = workspace.ablation(
            f'name="rates", base="tiny.py", seeds={seeds}, baseline={{"optim.lr": 0.1}}, claim={claim}, '
            'axes={"optim.lr": [0.1, 0.2, 0.3], "encoder.hidden": [[4], [8]]}'
        )
        self.ablation = plan(target, [], None, [])
        self.folder = workspace.results / "rates"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.records = Records(self.folder / "runs.jsonl")

    @staticmethod
    def dict(fields):
        return f"dict({fields})"

    def add(self, lr, width, test, validation=0.5, rank=10.0, seeds=None, attainable=16):
        """Records of one cell; numbers are the same for all seeds, sequences one a seed."""
        (cell,) = [cell for cell in self.ablation.cells if tuple(cell.values.values()) == (lr, [width])]
        for seed in range(self.ablation.seeds) if seeds is None else seeds:
            test_, validation_, rank_ = (v if isinstance(v, float) else v[seed] for v in (test, validation, rank))
            metrics = {
                "solver": "lbfgs",
                "test_accuracy": {"mean": test_},
                "validation_accuracy": {"mean": validation_},
            }
            self.records.add(
                {
                    "hash": cell.hash, "seed": seed, "evaluation": {"public": metrics}, "untrained": {},
                    "rank": {"representation": {"effective_rank": rank_, "attainable": attainable}},
                    "commit": "c", "device": "d", "torch": "t", "torch_geometric": "g", "threads": 1,
                }
            )  # fmt: skip
        return self

    def complete(self):
        """Records of all runs that have none yet, so that the verdict is no interim one."""
        for cell in self.ablation.cells:
            lr, (width,) = cell.values.values()
            self.add(lr, width, 0.1, rank=1.0)
        return self

    def judge(self):
        return judge(self.ablation, self.records)

    def write(self, failures=None):
        write_files(self.folder, self.ablation, self.records, failures or {}, "sslcollapse ablate rates.py")
        return (self.folder / "README.md").read_text()


def around(mean):
    return [mean + noise for noise in NOISE]


def rates(workspace, expect, *effects, margin=0, **options):
    """Differences of 0.2 to 0.1, one for each of the two widths."""
    grid = Grid(
        workspace,
        METRIC + f'name="accuracy", expect="{expect}", margin={margin}, cell={{"optim.lr": 0.2}}',
        **options,
    )
    for width, effect in zip((4, 8), effects, strict=True):
        grid.add(0.1, width, [0.7] * 8).add(0.2, width, around(0.7 + effect))
    return grid.complete()


@pytest.mark.parametrize(
    ("expect", "margin", "interval", "expected"),
    [
        ("positive", 0, (0.1, 0.5), "supported"),
        ("positive", 0, (-0.1, 0.5), "inconclusive"),
        ("positive", 0, (-0.5, -0.1), "contradicted"),
        ("positive", 0, (0.0, 0.0), "inconclusive"),
        ("positive", 0.3, (0.1, 0.5), "inconclusive"),
        ("positive", 0.3, (0.1, 0.2), "contradicted"),
        ("negative", 0, (-0.5, -0.1), "supported"),
        ("negative", 0.3, (-0.5, -0.1), "inconclusive"),
        ("negative", 0, (0.1, 0.5), "contradicted"),
        ("none", 0.3, (-0.1, 0.2), "supported"),
        ("none", 0.3, (-0.1, 0.4), "inconclusive"),
        ("none", 0.3, (0.4, 0.5), "contradicted"),
        ("none", 0.3, (-0.5, -0.4), "contradicted"),
        ("none", 0.3, (-0.5, 0.5), "inconclusive"),
        ("none", 0.3, (0.0, 0.0), "supported"),
        ("not positive", 0.3, (-9.0, 0.2), "supported"),
        ("not positive", 0.3, (-9.0, 0.4), "inconclusive"),
        ("not positive", 0.3, (0.4, 0.5), "contradicted"),
        ("not negative", 0.3, (-0.2, 9.0), "supported"),
        ("not negative", 0.3, (-0.4, 9.0), "inconclusive"),
        ("not negative", 0.3, (-0.5, -0.4), "contradicted"),
        ("positive", 0, None, "inconclusive"),
    ],
)
def test_the_outcome_follows_from_where_the_interval_lies(expect, margin, interval, expected):
    assert outcome(expect, margin, interval) == expected


@pytest.mark.parametrize(
    ("effects", "text", "tally"),
    [
        ((0.05, 0.02), "supported", "2 of 2 tests supported"),
        ((0.05, 0.0), "inconclusive at n = 8", "1 of 2 tests supported, 1 inconclusive"),
        ((0.05, -0.05), "not supported", "1 of 2 tests supported, 1 contradicted"),
    ],
)
def test_a_claim_is_supported_if_all_its_tests_are(workspace, effects, text, tally):
    verdict = rates(workspace, "positive", *effects).judge()
    assert (verdict.text, verdict.tally) == (text, tally)


def test_intervals_share_the_level_of_the_claim_and_are_in_points_of_percent(workspace):
    verdict = rates(workspace, "positive", 0.05, 0.0).judge()
    assert verdict.confidence == 0.975
    expected = student([100 * (0.05 + noise) for noise in NOISE], 0.975)
    estimate = verdict.results[0].estimate
    assert (estimate.mean, *estimate.interval) == pytest.approx((expected.mean, *expected.interval))
    low, high = expected.interval
    assert verdict.results[0].shown == f"{expected.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def test_the_margin_is_in_points_of_percent(workspace):
    assert rates(workspace, "positive", 0.05, 0.05, margin=2).judge().text == "supported"
    assert rates(workspace, "positive", 0.01, 0.05, margin=2).judge().text == "not supported"
    assert rates(workspace, "none", 0.0, 0.0, margin=1).judge().text == "supported"
    assert rates(workspace, "none", 0.0, 0.0, margin=0.01).judge().text == "inconclusive at n = 8"


@pytest.mark.parametrize(
    ("expect", "margin", "expected"), [("none", 1, "supported"), ("positive", 0, "inconclusive at n = 8")]
)
def test_exactly_zero_differences_support_no_effect_but_no_improvement(workspace, expect, margin, expected):
    where = 'where={"encoder.hidden": [4], "optim.lr": [0.1, 0.2]}'
    grid = Grid(workspace, METRIC + f'name="x", expect="{expect}", margin={margin}, {where}')
    assert grid.add(0.1, 4, 0.7).add(0.2, 4, 0.7).complete().judge().text == expected


def test_seeds_too_few_for_an_interval_are_inconclusive_with_the_reason(workspace):
    grid = Grid(
        workspace, METRIC + 'name="x", expect="positive", where={"encoder.hidden": [4], "optim.lr": [0.1, 0.2]}'
    )
    grid.add(0.1, 4, 0.7, seeds=[0]).add(0.2, 4, 0.9, seeds=[0])
    assert (grid.judge().text, grid.judge().results[0].shown) == ("interim", "+20.00 (one seed)")
    grid.add(0.1, 4, 0.7, seeds=[1]).add(0.2, 4, 0.9, seeds=[1])
    assert grid.judge().results[0].shown == "+20.00 (the same in all seeds)"


def test_validation_chooses_and_the_test_metric_does_not_matter(workspace):
    check = METRIC + 'name="best", expect="positive", select="validation", where={"encoder.hidden": [4]}'
    grid = Grid(workspace, check)
    grid.add(0.1, 4, around(0.7)).add(0.2, 4, around(0.6), validation=0.9).add(0.3, 4, around(0.99), validation=0.8)
    (result,) = grid.judge().results
    assert (taken(result), result.outcome) == ([0.2], "contradicted")
    assert result.estimate.mean == pytest.approx(-10, abs=0.1)
    assert "lr=0.2 (of 2, by validation)" in grid.write()


@pytest.mark.parametrize(("cells", "chosen"), [([0.2, 0.3], 0.2), ([0.1, 0.2, 0.3], 0.1)])
def test_validation_may_choose_what_is_subtracted_where_it_is_a_candidate(workspace, cells, chosen):
    check = METRIC + f'name="tuned", expect="positive", select="validation", cell={{"optim.lr": {cells}}}, '
    grid = Grid(workspace, check + 'where={"encoder.hidden": [4]}')
    grid.add(0.1, 4, around(0.7), validation=0.9).add(0.2, 4, around(0.6), validation=0.8).add(0.3, 4, 0.5)
    (result,) = grid.judge().results
    assert taken(result) == [chosen]
    assert result.estimate.mean == pytest.approx(0 if chosen == 0.1 else -10)


def test_records_of_other_recipes_count_for_nothing_and_are_counted_on_the_page(workspace):
    grid = Grid(workspace, METRIC + 'name="x", expect="positive"').add(0.1, 4, 0.7)
    assert "Other recipes' records" not in grid.write()
    (first, *_) = grid.records
    grid.records.add({**first, "hash": "of a cell that is no more"})
    text = grid.write()
    assert "8 of 48 runs (6 cells × 8 seeds) are finished. Other recipes' records in the file" in text
    assert "which count for nothing here: 1." in text


def test_a_metric_that_no_record_has_is_named(workspace):
    check = 'metric="rank.embedding.effective_rank", name="x", expect="positive", cell={"optim.lr": 0.2}, '
    grid = Grid(workspace, check + 'where={"encoder.hidden": [4]}')
    grid.add(0.1, 4, 0.7).add(0.2, 4, 0.7)
    (result,) = grid.judge().results
    assert (result.outcome, result.shown.partition(" of ")[0]) == (
        "not run",
        "– (no rank.embedding.effective_rank in the records",
    )


def test_differences_of_fractions_keep_their_digits(workspace):
    check = METRIC.replace("evaluation.public.test_accuracy", "rank.representation.effective_rank_fraction")
    grid = Grid(workspace, check + 'name="x", expect="positive", where={"encoder.hidden": [4], "optim.lr": [0.1, 0.2]}')
    for lr, rank in ((0.1, 10.0), (0.2, 11.0)):
        grid.add(lr, 4, 0.7, rank=rank, attainable=256)
    assert grid.judge().results[0].shown.startswith("+0.003906 ")


def test_validation_chooses_over_the_seeds_that_all_candidates_have(workspace):
    check = 'metric="rank.representation.effective_rank", name="best", expect="positive", select="validation", '
    grid = Grid(workspace, check + 'where={"encoder.hidden": [4]}')
    grid.add(0.1, 4, 0.7).add(0.2, 4, 0.7, validation=[0.5, 0.5, *[1.0] * 6])
    grid.add(0.3, 4, 0.7, validation=0.6, rank=around(12.0), seeds=[0, 1])
    (result,) = grid.judge().results
    assert (taken(result), result.estimate.n) == ([0.3], 2)
    assert result.test.check.probe == "public"


def taken(result):
    """Learning rates that validation chose for the halves of the seeds."""
    return [cell.values["optim.lr"] for cell in result.places[0].cell.every]


def test_each_half_of_the_seeds_is_tested_on_what_the_other_half_has_chosen(workspace):
    check = METRIC + 'name="best", expect="positive", select="validation", where={"encoder.hidden": [4]}'
    grid = Grid(workspace, check).add(0.1, 4, 0.5)
    even, odd = [0.9, 0.1] * 4, [0.1, 0.9] * 4  # what looks best on the seeds themselves is worst on the others
    grid.add(0.2, 4, even, validation=even).add(0.3, 4, odd, validation=odd)
    (result,) = grid.complete().judge().results
    assert (taken(result), result.estimate.mean) == ([0.3, 0.2], pytest.approx(-40))
    assert "| lr=0.3 / lr=0.2 (of 2, by validation) | lr=0.1 | -40.00" in grid.write()


def test_an_interval_after_a_choice_is_wider_by_what_the_halves_have_in_common(workspace):
    choosing = METRIC + 'name="best", expect="positive", select="validation", where={"encoder.hidden": [4]}'
    grid = Grid(workspace, choosing).add(0.1, 4, 0.7).add(0.2, 4, around(0.8), validation=0.9).add(0.3, 4, 0.2)
    expected = student([100 * (0.1 + noise) for noise in NOISE], widening=1.36**0.5)
    (result,) = grid.judge().results
    assert result.estimate.interval == pytest.approx(expected.interval)
    assert result.estimate.p == pytest.approx(expected.p)


def test_one_seed_that_chooses_and_is_tested_gives_no_interval(workspace):
    choosing = METRIC + 'name="best", expect="positive", select="validation", where={"encoder.hidden": [4]}'
    grid = Grid(workspace, choosing, seeds=1).add(0.1, 4, [0.7]).add(0.2, 4, [0.8]).add(0.3, 4, [0.9], validation=0.9)
    assert grid.judge().results[0].shown == "+20.00 (one seed)"


@pytest.mark.parametrize("effect", [0.05, -0.05])
def test_a_verdict_on_a_part_of_the_plan_is_interim_whatever_the_intervals_say(workspace, effect):
    check = METRIC + 'name="accuracy", expect="positive", where={"encoder.hidden": [4], "optim.lr": [0.1, 0.2]}'
    grid = Grid(workspace, check).add(0.1, 4, 0.7).add(0.2, 4, around(0.7 + effect))
    outcome = "supported" if effect > 0 else "contradicted"
    verdict = grid.judge()
    assert [result.outcome for result in verdict.results] == [outcome]
    assert verdict.text == "interim"
    assert "**Interim** (16 of 48 planned runs): so far " in grid.write()
    (row,) = [line for line in claims_table(workspace.results) if "rates" in line]
    assert "**interim** (16 of 48 runs), " in row
    assert row.endswith("[details](rates/README.md) |")
    assert grid.complete().judge().text == ("supported" if effect > 0 else "not supported")


def test_fewer_seeds_than_the_file_plans_are_a_part_of_the_plan(workspace):
    grid = rates(workspace, "positive", 0.05, 0.05)
    assert grid.judge().text == "supported"
    fewer = plan(workspace.folder / "ablation.py", [], 5, [])
    verdict = judge(fewer, grid.records)
    assert (verdict.text, verdict.finished, verdict.total) == ("interim", 30, 48)


@pytest.mark.parametrize(
    ("seeds", "text"), [(2, "inconclusive at n = 2"), (4, "inconclusive at n = 4"), (5, "supported")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_no_test_is_decided_below_five_seeds(workspace, seeds, text, sign):
    noise = [sign * (0.3 + each / 1000) for each in NOISE]
    grid = Grid(workspace, METRIC + 'name="x", expect="positive", cell={"optim.lr": 0.2}', seeds=seeds)
    for width in (4, 8):
        grid.add(0.1, width, 0.5).add(0.2, width, [0.5 + each for each in noise])
    assert grid.complete().judge().text == (text if sign > 0 or seeds < 5 else "not supported")
    assert (f"The plan has {seeds} seeds, so no test of it can be decided." in grid.write()) is (seeds < 5)


RANK = (
    'metric="rank.representation.effective_rank", name="rank", cell={"optim.lr": 0.2}, where={"encoder.hidden": [4]}, '
)


@pytest.mark.parametrize(
    ("gain", "check", "expected"),
    [
        (0.09, 'expect="positive"', "contradicted"),
        (3.0, 'expect="positive"', "supported"),
        (0.09, 'expect="positive", margin=0.01', "supported"),
        (0.09, 'expect="none"', "supported"),
        (3.0, 'expect="not positive"', "contradicted"),
    ],
)
def test_a_change_of_rank_below_a_hundredth_of_what_is_attainable_is_none(workspace, gain, check, expected):
    grid = Grid(workspace, RANK + check)
    grid.add(0.1, 4, 0.7, rank=100.0, attainable=256).add(0.2, 4, 0.7, rank=around(100.0 + gain), attainable=256)
    (result,) = grid.judge().results
    assert result.outcome == expected
    if "margin" not in check:
        assert result.margin == 2.56
        assert "A change of rank counts from 1 % of what is attainable, where no margin was planned." in grid.write()


def test_the_margin_of_a_slope_of_rank_is_that_of_its_whole_length(workspace):
    check = 'kind="trend", expect="positive", along="optim.lr", where={"encoder.hidden": [4]}, name="rank", '
    grid = Grid(workspace, check + 'metric="rank.representation.effective_rank"')
    assert "> 1 % of what is attainable" in grid.add(0.1, 8, 0.7).write()
    for lr, gain in ((0.1, 0.0), (0.2, 0.1), (0.3, 0.2)):
        grid.add(lr, 4, 0.7, rank=around(10 + gain), attainable=16)
    (result,) = grid.judge().results
    assert result.margin == pytest.approx(0.16 / 0.2)


def test_numbers_of_one_test_are_corrected_alike_in_claim_json(workspace):
    grid = rates(workspace, "positive", 0.05, 0.0)
    grid.write()
    expected = student([0.05 + noise for noise in NOISE])
    assert json.loads((grid.folder / "claim.json").read_text())["tests"][0]["p"] == pytest.approx(2 * expected.p)


def test_ranks_of_different_numbers_of_samples_are_not_compared(workspace):
    grid = Grid(workspace, RANK + 'expect="positive"').add(0.1, 4, 0.7).add(0.2, 4, 0.7, rank=around(15.0))
    for record in grid.records:
        record["rank"]["representation"]["n"] = (
            1024 if record["rank"]["representation"]["effective_rank"] > 12 else 4096
        )
    assert grid.judge().results[0].shown == "– (ranks measured on different numbers of samples)"


def test_tests_without_records_are_not_run_and_keep_a_claim_from_being_supported(workspace):
    grid = Grid(workspace, METRIC + 'name="x", expect="positive", where={"encoder.hidden": [4]}')
    assert grid.judge().text == "not run"
    grid.add(0.1, 4, 0.7).add(0.2, 4, around(0.8))
    verdict = grid.judge()
    assert [result.outcome for result in verdict.results] == ["supported", "not run"]
    assert (verdict.text, verdict.tally) == ("interim", "so far 1 of 2 tests supported, 1 not run")
    assert "| lr=0.3 | lr=0.1 | – (no records) | – | > 0 | not run |" in grid.write()
    assert "1 of 2 tests so far | accuracy: +10.0" in "".join(claims_table(workspace.results))


def test_slopes_are_of_the_paired_gain_of_each_seed(workspace):
    check = 'kind="slope", name="gain", expect="negative", along="encoder.hidden", cell={"optim.lr": 0.2}'
    grid = Grid(workspace, METRIC + check)
    drift = [0.01 * k for k in range(8)]
    for width, gain in ((4, 0.06), (8, 0.02)):
        base = [0.5 + shift for shift in drift]
        grid.add(0.1, width, base).add(
            0.2, width, [b + gain + noise * width for b, noise in zip(base, NOISE, strict=True)]
        )
    verdict = grid.judge()
    slopes = [100 * slope([4, 8], [0.06 + 4 * noise, 0.02 + 8 * noise]) for noise in NOISE]
    assert verdict.results[0].estimate.mean == pytest.approx(-1, abs=0.02)
    assert verdict.results[0].estimate.interval == pytest.approx(student(slopes).interval)
    assert grid.complete().judge().text == "supported"


def test_a_trend_needs_seeds_with_all_points(workspace):
    check = 'kind="trend", name="rank", expect="positive", along="optim.lr", where={"encoder.hidden": [8]}'
    grid = Grid(workspace, 'metric="rank.representation.effective_rank", ' + check)
    grid.add(0.1, 8, 0.7, rank=around(10.0)).add(0.2, 8, 0.7, rank=around(11.0))
    assert grid.judge().results[0].outcome == "not run"
    grid.add(0.3, 8, 0.7, rank=around(12.0), seeds=range(2, 8))
    (result,) = grid.judge().results
    assert (result.estimate.mean, result.estimate.n, result.outcome) == (pytest.approx(10), 6, "supported")


def test_correlation_is_over_cells_with_an_interval_over_seeds(workspace):
    check = 'kind="correlation", name="rank", expect="positive", with_metric="rank.representation.effective_rank"'
    grid = Grid(workspace, METRIC + check)
    for index, cell in enumerate(grid.ablation.cells):
        lr, (width,) = cell.values.values()
        if index == 5:
            (result,) = grid.judge().results
            assert (result.outcome, result.cells, result.reason) == ("not run", 5, "fewer than 6 cells have records")
        grid.add(lr, width, around(0.5 + index / 10), rank=around(10.0 + index))
    (result,) = grid.judge().results
    assert (result.estimate.mean, result.estimate.n, result.cells, result.outcome) == (
        pytest.approx(1),
        8,
        6,
        "supported",
    )
    assert "| 6 of 6 cells | – | +1.00 [+1.00, +1.00] | 8 | > 0 | supported |" in grid.write()


def test_cells_that_are_the_same_do_not_count_for_a_correlation(workspace):
    check = 'kind="correlation", name="rank", expect="positive", with_metric="rank.representation.effective_rank"'
    grid = Grid(workspace, METRIC + check)
    for index, cell in enumerate(grid.ablation.cells):
        lr, (width,) = cell.values.values()
        grid.add(lr, width, 0.5 + min(index, 4) / 10, rank=10.0 + min(index, 4))
    assert grid.judge().results[0].reason == "5 cells differ, fewer than 6"


def test_a_correlation_of_too_few_seeds_has_no_interval_and_says_how_many_it_needs(workspace):
    check = 'kind="correlation", name="rank", expect="positive", with_metric="rank.representation.effective_rank"'
    grid = Grid(workspace, METRIC + check, seeds=5)
    for index, cell in enumerate(grid.ablation.cells):
        lr, (width,) = cell.values.values()
        grid.add(lr, width, around(0.5 + index / 10), rank=around(10.0 + index))
    verdict = grid.judge()
    assert (verdict.results[0].shown, verdict.text) == ("+1.00 (fewer than 6 seeds)", "inconclusive at n = 5")


def test_the_page_starts_with_the_verdict_and_claim_json_has_its_numbers(workspace):
    grid = rates(workspace, "positive", 0.05, 0.0, note="Two widths.")
    text = grid.write()
    assert text.index("## Verdict") < text.index("## Evaluation")
    for expected in (
        "Claim 4: Faster is better",
        "**Inconclusive at n = 8**: 1 of 2 tests supported, 1 inconclusive.",
        "Two widths.",
        "| accuracy | 1 layer of 4 | lr=0.2 | lr=0.1 | +5.01 [",
        "confidence 1 − 0.05/2 = 97.5 %",
        "* accuracy: difference in `evaluation.public.test_accuracy`",
    ):
        assert expected in text
    made = json.loads((grid.folder / "claim.json").read_text())
    assert (made["number"], made["verdict"], made["runs"]) == (
        4,
        "inconclusive at n = 8",
        {"finished": 48, "total": 48},
    )
    first = made["tests"][0]
    assert first["low"] < first["estimate"] < first["high"]
    assert (first["n"], first["outcome"], first["group"]) == (8, "supported", "1 layer of 4")


def test_a_claim_that_is_withdrawn_leaves_no_verdict_behind(workspace):
    grid = rates(workspace, "positive", 0.05, 0.0)
    grid.write()
    grid.ablation = dataclasses.replace(grid.ablation, claim=None)
    assert "Verdict" not in grid.write()
    assert not (grid.folder / "claim.json").exists()


def test_everything_written_is_the_same_bytes_whatever_the_order_of_the_records(workspace):
    grid = rates(workspace, "positive", 0.05, 0.0)
    overview = workspace.results / "README.md"
    overview.write_text("<!-- claims:begin --><!-- claims:end -->")
    grid.write()
    before = {path.name: path.read_bytes() for path in (*grid.folder.iterdir(), overview)}
    assert {"README.md", "table.csv", "table.tex", "claim.json"} <= before.keys()
    lines = (grid.folder / "runs.jsonl").read_text().splitlines(keepends=True)
    (grid.folder / "runs.jsonl").write_text("".join(reversed(lines)))
    grid.records = Records(grid.folder / "runs.jsonl")
    grid.write()
    after = {path.name: path.read_bytes() for path in (*grid.folder.iterdir(), overview)}
    assert {name: after[name] == before[name] for name in after if name != "runs.jsonl"} == dict.fromkeys(
        after.keys() - {"runs.jsonl"}, True
    )


def test_the_overview_lists_all_claims_between_its_markers_and_touches_nothing_else(workspace):
    head, tail = "# Results\r\n\nkept\n<!-- claims:begin -->", "<!-- claims:end -->\n\n| kept |\n"
    overview = workspace.results / "README.md"
    grid = rates(workspace, "positive", 0.05, 0.0)
    overview.write_bytes(f"{head}\nold\n{tail}".encode())
    other = workspace.results / "another"
    other.mkdir()
    grid.write()
    claim = json.loads((grid.folder / "claim.json").read_text())
    (other / "claim.json").write_text(json.dumps({**claim, "number": 1, "statement": "First"}))
    grid.write()
    text = overview.read_bytes().decode()
    assert text.startswith(head)
    assert text.endswith(tail)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "README.md" in line]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 4"]
    assert "| **inconclusive**, 1 of 2 tests | accuracy: +0.01 [" in rows[1]
    assert "] | 8 | see its page | open at so many seeds | [details](rates/README.md) |" in rows[1]
    assert "old" not in text


def test_an_overview_without_markers_is_left_alone_and_a_damaged_claim_is_named_in_it(workspace):
    overview = workspace.results / "README.md"
    grid = rates(workspace, "positive", 0.05, 0.0)
    overview.write_text("# Results\n<!-- claims:end --><!-- claims:begin -->\n")
    grid.write()
    assert overview.read_text() == "# Results\n<!-- claims:end --><!-- claims:begin -->\n"
    overview.write_text("<!-- claims:begin --><!-- claims:end -->")
    (workspace.results / "bad").mkdir()
    (workspace.results / "bad" / "claim.json").write_text("{}")
    grid.write()
    last = overview.read_text().splitlines()[-2]
    assert last == "|  | bad | its claim.json cannot be read; make it again |  |  |  |  | [details](bad/README.md) |"
    assert "[details](rates/README.md)" in overview.read_text()
