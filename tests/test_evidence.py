"""The commands that write pages on the records of several grids, and on the statistics."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslcollapse.ablation.files import write_plan
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.cli import run_command
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.recipe import load
from tools import evidence
from tools.bench import study
from tools.evidence import depth, published, simulate
from tools.evidence.mechanism import ACCURACY, LEAST_DATA_SETS, Pair, associate, collect, measured
from tools.evidence.mechanism_page import claim_json, mechanism, write_mechanism
from tools.evidence.published import write_published
from tools.evidence.reproducibility import compare, made_runs, shared, write_reproducibility

ROOT = Path(__file__).parents[1]
BASE = """
recipe = dict(
    name="tiny",
    domain=dict(type="graph", dataset=dict(type="digits"), views=dict(strength=0.2)),
    encoder=dict(type="gcn", hidden=[4]),
    objective=dict(type="bgrl", predictor_hidden=4),
    optim=dict(type="adamw", lr=1e-3, warmup_steps=0),
    train=dict(steps=2),
    monitor=dict(every=0),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
"""


def record(cell, seed, accuracy, rank, **more):
    entry = {
        "effective_rank": rank,
        "attainable": 8,
        "n": 10,
        "effective_rank_centred": rank / 2,
        "attainable_centred": 8,
    }
    layers = {
        "convs.0": {"weight": {"effective_rank": rank / 4, "attainable": 4}, "output": entry},
        "predictor.layers.0": {"weight": {"effective_rank": 1.0, "attainable": 4}},
    }
    return {
        "hash": cell.hash, "seed": seed, "name": "tiny", "steps": 2, "untrained": {}, "regularizers": {},
        "evaluation": {"public": {"test_accuracy": {"mean": accuracy}, "validation_accuracy": {"mean": accuracy}}},
        "rank": {"representation": entry, "layers": layers}, "threads": 1, "device": "d", **more,
    }  # fmt: skip


class Folder:
    """A results folder with grids of a width without and with WERank; nothing is trained."""

    def __init__(self, path: Path) -> None:
        self.path, self.results = path, path / "results"
        (path / "tiny.py").write_text(BASE)

    def grid(self, name, widths, seeds=5, effect=0.1, rank=2.0, baseline=True):
        werank = '[None, dict(type="werank", coefficient=1)]'
        axes = f'"encoder.hidden": {[[w] for w in widths]}, "regularizers.werank": {werank}'
        target = self.path / f"{name}.py"
        against = '{"regularizers.werank": None}' if baseline else "{}"
        target.write_text(
            f'ablation = dict(name="{name}", base="tiny.py", seeds={seeds}, axes={{{axes}}}, baseline={against})'
        )
        ablation = plan(target, [], None, [])
        records = Records(self.results / name / "runs.jsonl")
        for cell in ablation.cells:
            (width,), on = cell.values["encoder.hidden"], cell.values["regularizers.werank"] is not None
            for seed in range(seeds):
                noise = 0.001 * ((7 * seed + width) % 5 - 2)
                gain = on * (width / 100) + noise
                records.add(record(cell, seed, 0.5 + on * effect + gain, 3.0 + on * rank + 10 * gain))
        write_plan(self.results / name, ablation, "sslcollapse ablate")
        return ablation


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def pairs(settings, slope=0.5, direct=0.0, cells=4, seeds=5, noise=0.1):
    rng = np.random.default_rng(settings)
    made = []
    for setting in range(settings):
        base = 4 + rng.normal()
        for cell in range(cells):
            middle = base + rng.normal()
            for seed in range(seeds):
                rank = middle + 0.3 * rng.normal()
                gain = slope * rank + direct + noise * rng.normal()
                made.append(Pair(str(setting), str(setting), f"{setting}/{cell}", seed, {"rank": rank, ACCURACY: gain}))
    return made


def test_ranks_are_in_percent_of_what_is_attainable_and_heads_are_no_layers_of_the_encoder(folder):
    (cell, *_) = folder.grid("a", [4]).cells
    found = measured(record(cell, 0, 0.5, 2.0))
    assert found["representation, un-centred (RankMe)"] == (25.0, 10)
    assert found["representation, centred"] == (12.5, 10)
    assert found["weights of the encoder's layers"][0] == 12.5
    assert "LiDAR of the representation" not in found


def test_a_gain_is_that_of_a_run_over_its_baselines_run_of_the_same_seed(folder):
    folder.grid("a", [4], seeds=5)
    found = collect(folder.results)
    assert len(found.pairs) == 5
    assert {pair.seed for pair in found.pairs} == set(range(5))
    for pair in found.pairs:
        assert pair.gains[ACCURACY] == pytest.approx(14.0)
        assert pair.gains["representation, un-centred (RankMe)"] == pytest.approx(100 * 2.4 / 8)


def test_a_run_that_stands_in_two_folders_counts_once(folder):
    folder.grid("a", [4, 5])
    folder.grid("b", [5, 6])
    found = collect(folder.results)
    assert (len(found.pairs), found.twice) == (15, 5)
    assert dict(found.used) == {"a": 10, "b": 5}


def test_what_gives_no_pairs_is_named_with_the_reason(folder):
    folder.grid("a", [4])
    folder.grid("b", [4])
    folder.grid("c", [4], baseline=False)
    found = collect(folder.results)
    assert found.skipped["c"] == "it compares nothing with a baseline"
    assert "no folder before has" in found.skipped["b"]


def test_association_is_found_within_settings_between_them_and_over_seeds():
    made = associate(pairs(20), "rank")
    for level in ("within", "between", "seeds"):
        slope = made[f"slope {level}"]
        assert slope["interval"][0] < 0.5 < slope["interval"][1]
        assert slope["interval"][1] - slope["interval"][0] < 0.4
        assert made[f"correlation {level}"]["estimate"] > 0.8
    assert (made["settings"], made["cells"], made["pairs"]) == (20, 80, 400)


def test_an_association_between_settings_alone_is_not_taken_for_one_within_them():
    rng = np.random.default_rng(3)
    made = []
    for setting in range(30):
        base = rng.normal()
        for cell in range(4):
            for seed in range(3):
                gains = {"rank": base + 0.3 * rng.normal(), ACCURACY: 2 * base + 0.3 * rng.normal()}
                made.append(Pair(str(setting), str(setting), f"{setting}/{cell}", seed, gains))
    found = associate(made, "rank")
    assert found["slope between"]["interval"][0] > 1
    low, high = found["slope within"]["interval"]
    assert low < 0 < high


@pytest.mark.parametrize(("direct", "share"), [(0.0, 100.0), (2.0, 50.0)])
def test_the_mediated_share_is_what_rank_carries_of_the_gain(direct, share):
    found = associate(pairs(40, direct=direct), "rank")["share within"]
    assert found["interval"][0] < share < found["interval"][1]
    assert found["estimate"] == pytest.approx(share, abs=10)


def test_intervals_resample_data_sets_since_settings_of_one_are_not_independent():
    rng = np.random.default_rng(1)
    slopes = rng.normal(size=12)
    of_data, of_setting = (
        [
            Pair(f"{d}/{k}", str(d) if shared else f"{d}/{k}", f"{d}/{k}/{cell}", 0, {"rank": x, ACCURACY: 5 + x * s})
            for d, s in enumerate(slopes)
            for k in range(6)
            for cell, x in enumerate(np.random.default_rng(10 * d + k).normal(size=4))
        ]
        for shared in (True, False)
    )
    wide, narrow = (associate(made, "rank")["slope within"]["interval"] for made in (of_data, of_setting))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])
    assert (associate(of_data, "rank")["data sets"], associate(of_data, "rank")["settings"]) == (12, 72)


def test_what_a_slope_within_settings_hangs_on_is_said():
    made = [
        Pair(setting, setting, f"{setting}/{cell}", 0, {"rank": width * cell, ACCURACY: 1.0 * cell})
        for setting, width, cells in (("a", 3.0, 2), ("b", 1.0, 2), ("c", 9.0, 1))
        for cell in range(cells)
    ]
    assert associate(made, "rank")["spread"] == {"settings": 2, "largest": 90.0}


def test_a_gain_that_is_not_distinct_from_0_has_no_share():
    centred = [
        Pair(p.setting, p.data, p.cell, p.seed, {"rank": p.gains["rank"], ACCURACY: p.gains[ACCURACY] - 2})
        for p in pairs(20)
    ]
    found = associate(centred, "rank")
    assert found["share within"] == {"estimate": None, "interval": None}
    assert found["indirect within"]["estimate"] is not None


def test_too_few_data_sets_have_no_interval_and_the_claim_is_then_not_decided(folder):
    found = associate(pairs(LEAST_DATA_SETS - 1), "rank")
    assert found["slope within"]["interval"] is None
    assert found["slope within"]["estimate"] == pytest.approx(0.5, abs=0.1)
    folder.grid("a", [4, 5])
    claim = claim_json(mechanism(folder.results))
    assert claim["verdict"] == "inconclusive at n = 1"
    assert {test["reason"] for test in claim["tests"]} == {"fewer than 10 data sets"}


def test_the_page_says_what_is_missing_and_the_claim_has_the_form_of_the_others(folder):
    folder.grid("a", list(range(4, 16)))
    made = mechanism(folder.results)
    assert made["settings"] == 12
    (folder.results / "README.md").write_text("<!-- claims:begin -->\n<!-- claims:end -->\n")
    page = write_mechanism(folder.results)
    assert "claim_13_mechanism/README.md" in (folder.results / "README.md").read_text()
    text = page.read_text()
    assert page == folder.results / "claim_13_mechanism" / "README.md"
    assert "α-ReQ of the representation, LiDAR of the representation" in " ".join(text.split())
    assert "n = 1 data sets with 12 settings, 60 pairs of runs" in text
    claim = json.loads((page.parent / "claim.json").read_text())
    assert claim["number"] == 13
    assert {test["outcome"] for test in claim["tests"]} <= {"supported", "contradicted", "inconclusive", "not run"}
    assert "[a](../a/README.md) 60" in text
    before = text, (page.parent / "mechanism.json").read_text()
    assert (write_mechanism(folder.results).read_text(), (page.parent / "mechanism.json").read_text()) == before


def test_an_unfinished_grid_makes_the_claim_interim(folder):
    folder.grid("a", [4, 5])
    path = folder.results / "a" / "runs.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    made = mechanism(folder.results)
    assert made["unfinished"] == ["a"]
    assert claim_json(made)["verdict"] == "interim"


def test_two_makings_of_the_same_runs_are_compared_metric_by_metric(folder):
    (cell, *_) = folder.grid("a", [4]).cells
    for side, shift in (("one", 0.0), ("two", 0.002)):
        records = Records(folder.path / side / "runs.jsonl")
        for seed in range(3):
            records.add(record(cell, seed, 0.5 + shift * seed, 2.0, threads=1 + (side == "two")))
    made = compare(folder.path / "one", folder.path / "two" / "runs.jsonl", "threads")
    assert (made["runs"], made["equal"]) == (3, 1)
    assert made["metrics"]["evaluation.public.test_accuracy"] == {"median": 0.2, "largest": 0.4, "n": 3}
    assert made["metrics"]["rank.representation.effective_rank"]["largest"] == 0.0
    page = write_reproducibility(folder.results, [folder.path / "one", folder.path / "two"], "threads").read_text()
    assert "3 runs (tiny) made twice, 1 of them with equal numbers. Differs: threads 1 / 2." in " ".join(page.split())
    assert "| threads | threads | 1 of 3 | 0.4 | 0 |" in page
    assert "Not varied in any of them: device, torch, torch_geometric, sslcollapse, commit, streams." in page
    again = write_reproducibility(folder.results, [], None).read_text()
    assert again == page, "comparisons are kept"


def test_runs_without_a_common_hash_and_seed_are_no_comparison(folder):
    first, second, *_ = folder.grid("a", [4]).cells
    for side, cell in (("one", first), ("two", second)):
        Records(folder.path / side / "runs.jsonl").add(record(cell, 0, 0.5, 2.0))
    with pytest.raises(RunError, match=r"no run of the same hash and seed \(1 and 1 runs\)"):
        compare(folder.path / "one", folder.path / "two", "x")
    with pytest.raises(RunError, match=r"neither a runs.jsonl nor a folder with finished runs"):
        made_runs(folder.path / "nothing")


def test_runs_that_several_folders_share_are_listed_once_with_their_seeds(folder):
    folder.grid("a", [4, 5])
    folder.grid("b", [5, 6])
    found = shared(folder.results)
    assert [(each["folders"], each["seeds"]) for each in found] == [(["a", "b"], [0, 1, 2, 3, 4])] * 2
    assert "| tiny | 0, 1, 2, 3, 4 | a, b |" in write_reproducibility(folder.results, [], None).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproducibility", "a"], "give two sides to compare, or none to write the page; got 1"),
        (["reproducibility", "a", "b"], "--label: two sides have one"),
        (["simulate", "--trials", "3"], "--trials must be at least 40, got 3"),
        (["mechanism"], "no results folder with a runs.jsonl in it; name another with --results"),
    ],
)
def test_a_command_that_cannot_be_is_answered(words, message, tmp_path, capsys):
    assert run_command(evidence.parser(), [*words, "--results", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


TABLES = """{"sources": {"S": ["Somebody, 2020", "https://example.org"]}, "tables": [{
  "title": "T", "protocol": "P.", "data": ["One", "Two"],
  "published": [{"method": "A", "source": "S", "n": 20, "figures": {"Two": "70.10 ± 0.30"}}],
  "ours": [{"method": "B", "metric": "evaluation.public.test_accuracy", "from": {
    "One": {"folder": "a", "values": {"encoder.hidden": [4], "regularizers.werank": null}},
    "Two": {"folder": "not_run", "values": {}}}}]}]}"""


def test_our_accuracy_stands_beside_published_figures_and_what_is_not_run_is_an_empty_cell(folder):
    folder.grid("a", [4, 5])
    (folder.results / "published.json").write_text(TABLES)
    text = write_published(folder.results).read_text()
    assert "| method | from | One | Two | n | budget |" in text
    assert "| A | S | – | 70.10 ± 0.30 | 20 | – |" in text
    assert "| B | ours | 50.00 ± 0.16 | – | 5 | 2 steps |" in text
    assert "* S: [Somebody, 2020](https://example.org)" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4], ", "[9], ", r"damaged \(KeyError: .0 cells of a have"),
        ('"encoder.hidden": [4], ', "", r"2 cells of a have"),
        ("}]}", "", r"published.json: damaged"),
    ],
)
def test_published_figures_beside_no_cell_of_ours_or_several_are_refused(folder, old, new, message):
    folder.grid("a", [4, 5])
    (folder.results / "published.json").write_text(TABLES.replace(old, new))
    with pytest.raises(RunError, match=message):
        write_published(folder.results)


def test_the_page_of_published_tables_is_what_its_json_and_the_records_say():
    results = ROOT / "docs/results"
    made = json.loads((results / "published.json").read_text())
    assert (results / "published.md").read_text() == published.page(made, results) + "\n"


def test_each_cell_that_a_gpu_is_to_fill_is_one_that_its_command_makes():
    made = json.loads((ROOT / "docs/results/published.json").read_text())
    planned = [(row, place) for table in made["tables"] for row in table["ours"] for place in row["from"].values()]
    planned = [(row, place) for row, place in planned if place["folder"].startswith("published_")]
    assert {place["folder"] for _, place in planned} == set(study.PUBLISHED) - {"published_cifar10"}
    for row, place in planned:
        words = study.published(place["folder"])
        coefficients = [float(value) for value in words[2].partition("=")[2].split(",")]
        assert place["values"]["regularizers.werank.coefficient"] in coefficients
        probe = place.get("metric", row["metric"]).split(".")[1]
        assert probe in load(ROOT / words[0])["evaluate"]


def finished_run(path, name, share):
    layers = {f"convs.{k}": {} for k in range(2)} | {"predictor.layers.0": {}}
    rank = {"representation": {"effective_rank": 4 * share, "attainable": 4, "n": 8}, "layers": layers}
    scores = {"public": {"test_accuracy": {"mean": share}}}
    path.mkdir()
    (path / "recipe.json").write_text(json.dumps({"name": name, "seed": 3}))
    (path / "result.json").write_text(
        json.dumps(
            {"hash": "h", "seed": 3, "steps": 2, "evaluation": scores, "untrained": scores, "rank": rank,
             "recipe": {"name": name}, "regularizers": {}, "seconds": {}}
        )
    )  # fmt: skip
    rows = []
    for step in (0, 2):
        row = {"step": step}
        for k, layer in enumerate(layers):
            row[f"rank/layers/{layer}/output/effective_rank"] = 4 * share / (1 + k * step)
            row[f"rank/layers/{layer}/output/attainable"] = 4
        rows.append(json.dumps(row))
    (path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    return path


def test_the_picture_of_rank_by_depth_has_its_figures_beside_it(tmp_path):
    runs = [finished_run(tmp_path / name, name, share) for name, share in (("plain", 0.5), ("werank", 1.0))]
    image = tmp_path / "images/depth.png"
    words = ["depth", *map(str, runs), "--image", str(image), "--titles", "without", "with"]
    assert run_command(evidence.parser(), words) == 0
    first, second = json.loads(image.with_suffix(".json").read_text())["runs"]
    assert first["outputs"] == {"convs.0": {"0": 0.5, "2": 0.5}, "convs.1": {"0": 0.5, "2": 0.1667}}
    assert (second["accuracy"], second["untrained"], second["rank"]) == (100.0, 100.0, 4.0)
    assert depth.title(first) == "without: 50.0 %, rank 2"
    with Image.open(image) as picture:
        assert picture.width > picture.height > 100


def test_the_picture_of_the_repository_is_of_the_recipes_that_differ_by_werank_alone():
    plain, werank = json.loads((ROOT / depth.IMAGE).with_suffix(".json").read_text())["runs"]
    assert (plain["name"], werank["name"]) == ("bgrl_deep_cora", "bgrl_werank_deep_cora")
    assert plain["seed"] == werank["seed"]
    last: list[float] = []
    for run in (plain, werank):
        assert len(run["outputs"]) == 8
        ends = [shares[str(run["steps"])] for shares in run["outputs"].values()]
        assert ends == sorted(ends, reverse=True), "rank falls from layer to layer"
        last.append(ends[-1])
    assert last[1] > 3 * last[0]


def test_a_run_without_ranks_over_time_cannot_be_drawn(tmp_path):
    run = finished_run(tmp_path / "plain", "plain", 0.5)
    with pytest.raises(RecipeError, match="--titles: give one a run, got 1 for 2 runs"):
        depth.write_depth([run, run], tmp_path / "x.png", ["one"])
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="not a finished run whose layers were measured on the way"):
        depth.write_depth([run], tmp_path / "x.png")


def test_simulated_sequences_of_looks_keep_the_error_where_looks_without_a_rule_do_not():
    rows = simulate.looks(np.random.default_rng(0), 300)
    normal = [row for row in rows if row["setting"].endswith("; normal")]
    assert all(row["found"] < 5 + 3 * row["error"] for row in normal if "not used" not in row["what"])
    assert all(row["found"] > 8 for row in normal if "not used" in row["what"])
    (chosen,) = [row for row in rows if "chosen anew" in row["setting"]]
    assert chosen["found"] < 5 + 3 * chosen["error"]


def test_the_page_of_the_simulations_is_what_its_json_says():
    made = json.loads((ROOT / "docs/statistics.json").read_text())
    assert (ROOT / "docs/statistics.md").read_text() == simulate.page(made).rstrip("\n") + "\n"
    assert list(made["parts"]) == list(simulate.PARTS)


def test_the_page_of_claim_13_is_what_its_json_says():
    from tools.evidence.mechanism_page import page

    place = ROOT / "docs/results/claim_13_mechanism"
    made = json.loads((place / "mechanism.json").read_text())
    assert (place / "README.md").read_text() == page(made)
    assert json.loads((place / "claim.json").read_text()) == claim_json(made)
