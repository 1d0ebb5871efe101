"""Recipes are what they say: BGRL's published settings, and WERank as the only change."""

from pathlib import Path

import pytest

from sslcollapse.ablation.grid import plan
from sslcollapse.recipe import load, resolve

RECIPES = Path(__file__).parents[2] / "recipes"
DATASETS = ["cora", "citeseer", "pubmed", "photo", "computers", "cs", "physics", "wikics", "ppi", "arxiv"]

# hidden, edge drop, feature mask, lr, predictor (Thakoor et al. 2022 and its authors' code)
PUBLISHED = {
    "wikics": ([512, 256], [0.2, 0.3], [0.2, 0.1], 5e-4, 512),
    "computers": ([256, 128], [0.5, 0.4], [0.2, 0.1], 5e-4, 512),
    "photo": ([256, 128], [0.4, 0.1], [0.1, 0.2], 1e-4, 512),
    "cs": ([512, 256], [0.3, 0.2], [0.3, 0.4], 1e-5, 512),
    "physics": ([256, 128], [0.4, 0.1], [0.1, 0.4], 1e-5, 512),
    "ppi": ([512, 512, 512], [0.3, 0.25], [0.25, 0.0], 5e-3, 512),
    "arxiv": ([256, 256, 256], [0.6, 0.6], [0.0, 0.0], 1e-2, 256),
}


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_a_recipe_has_the_settings_its_authors_published(dataset):
    recipe = resolve(load(RECIPES / f"bgrl_{dataset}.py"))
    hidden, edge_drop, feature_mask, lr, predictor = PUBLISHED[dataset]
    assert recipe["encoder"]["hidden"] == hidden
    assert recipe["domain"]["views"] == {
        "edge_drop": edge_drop,
        "feature_mask": feature_mask,
        "strength": 1.0,
        "undirected": False,
    }
    assert (recipe["optim"]["lr"], recipe["optim"]["weight_decay"]) == (lr, 1e-5)
    assert (recipe["train"]["steps"], recipe["optim"]["warmup_steps"]) == (10_000, 1_000)
    assert (recipe["objective"]["momentum"], recipe["objective"]["predictor_hidden"]) == (0.99, predictor)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_werank_recipe_changes_nothing_but_name_and_regularizers(dataset):
    plain, ranked = (load(RECIPES / f"{name}_{dataset}.py") for name in ("bgrl", "bgrl_werank"))
    assert (plain["name"], ranked["name"]) == (f"bgrl_{dataset}", f"bgrl_werank_{dataset}")
    plain, ranked = resolve(plain), resolve(ranked)
    assert plain["regularizers"] == {}
    same = {key: value for key, value in ranked.items() if key not in ("name", "regularizers")}
    assert same == {key: value for key, value in plain.items() if key not in ("name", "regularizers")}
    assert list(ranked["regularizers"]) == ["werank"]
    assert ranked["regularizers"]["werank"]["type"] == "werank"
    assert ranked["regularizers"]["werank"]["squared"] is False


@pytest.mark.parametrize("path", sorted((RECIPES / "ablations").glob("*.py")), ids=lambda path: path.stem)
def test_every_ablation_resolves_all_its_cells_under_its_own_name(path):
    ablation = plan(path, [], None, [])
    assert ablation.name == path.stem
    assert len({cell.hash for cell in ablation.cells}) == len(ablation.cells)


@pytest.mark.parametrize("dataset", ["cora", "citeseer"])
def test_tuning_gave_the_baseline_as_many_first_trials_as_werank(dataset):
    paths = [RECIPES / f"ablations/{name}_{dataset}.py" for name in ("tune", "tune_werank")]
    cells = [len(plan(path, [], None, []).cells) for path in paths]
    assert cells == [8, 8]
