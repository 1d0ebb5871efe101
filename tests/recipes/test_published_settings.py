"""Recipes are what they say: BGRL's published settings, and WERank as the only change."""

from pathlib import Path

import pytest

from sslcollapse.ablation.grid import plan
from sslcollapse.recipe import load, resolve

RECIPES = Path(__file__).parents[2] / "recipes"

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


# objective, optimizer, lr at batch 256, weight decay (solo-learn; SimCLR: lightly, lr .06 at batch 128)
CIFAR = {
    "simclr": ({"projector": [512, 128], "temperature": 0.5}, "sgd", 0.12, 5e-4),
    "byol": ({"projector": [4096, 256], "predictor_hidden": 4096, "momentum": 0.99}, "lars", 1.0, 1e-5),
    "vicreg": ({"projector": [2048] * 3, "invariance": 25.0, "variance": 25.0, "covariance": 1.0}, "lars", 0.3, 1e-4),
    "barlow_twins": ({"projector": [2048] * 3, "redundancy": 5e-3, "scale": 0.1}, "lars", 0.3, 1e-4),
}


@pytest.mark.parametrize("name", CIFAR)
def test_a_cifar_recipe_has_published_settings_with_a_resnet_for_small_images(name):
    recipe = resolve(load(RECIPES / f"{name}_cifar10.py"))
    objective, optimizer, lr, weight_decay = CIFAR[name]
    assert {key: recipe["objective"][key] for key in objective} == objective
    assert (recipe["optim"]["type"], recipe["optim"]["weight_decay"]) == (optimizer, weight_decay)
    assert recipe["optim"]["lr"] == pytest.approx(lr)
    assert recipe["encoder"]["stem"] == "cifar"
    assert recipe["domain"]["batch_size"] * (recipe["train"]["steps"] // 200) in range(49_000, 50_001)


# hidden, edge drop, feature mask, lr, steps (their authors' code; GRACE's width on Cora is ours, chosen on validation)
OTHER_GRAPHS = {
    "grace_cora": ([512, 256], [0.2, 0.4], [0.3, 0.4], 5e-4, 200),
    "grace_citeseer": ([512, 256], [0.2, 0.0], [0.3, 0.2], 1e-3, 200),
    "cca_ssg_cora": ([512, 512], [0.4, 0.4], [0.1, 0.1], 1e-3, 50),
    "cca_ssg_citeseer": ([512], [0.4, 0.4], [0.0, 0.0], 1e-3, 20),
}


@pytest.mark.parametrize("name", OTHER_GRAPHS)
def test_grace_and_cca_ssg_have_the_settings_of_their_authors_but_for_one_width(name):
    recipe = resolve(load(RECIPES / f"{name}.py"))
    hidden, edge_drop, feature_mask, lr, steps = OTHER_GRAPHS[name]
    assert recipe["encoder"]["hidden"] == hidden
    views = recipe["domain"]["views"]
    assert (views["edge_drop"], views["feature_mask"]) == (edge_drop, feature_mask)
    assert (recipe["optim"]["lr"], recipe["train"]["steps"]) == (lr, steps)


# data: noise, noisy dimensions; encoder: widths, bias, decay; lr (Jing et al. 2022 and their code)
TOY = {"toy_noise": (1.5, 8, [16], True, None, 1e-3), "toy_depth": (1e-3, None, [16, 16], False, 0.35, 1e-2)}


@pytest.mark.parametrize("name", TOY)
def test_a_toy_experiment_has_the_settings_of_its_authors(name):
    recipe = resolve(load(RECIPES / f"{name}.py"))
    noise, dims, hidden, bias, decay, lr = TOY[name]
    assert recipe["domain"] == {
        "type": "toy",
        "dim": 16,
        "batch_size": 128,
        "views": {"noise": noise, "dims": dims, "strength": 1.0},
    }
    assert [recipe["encoder"][key] for key in ("hidden", "bias", "decay")] == [hidden, bias, decay]
    objective, optim = recipe["objective"], recipe["optim"]
    assert [objective[key] for key in ("similarity", "temperature", "projector")] == ["dot", 0.1, []]
    assert [optim[key] for key in ("type", "lr", "momentum", "weight_decay")] == ["sgd", lr, 0.0, 0.0]
    assert (optim["schedule"], recipe["train"]["steps"]) == ("constant", 10_000)


PAIRS = sorted(path.stem for path in RECIPES.glob("*_werank_*.py"))
FLOORS = sorted(path.stem for path in RECIPES.glob("*_rank_floor_*.py"))


@pytest.mark.parametrize("ranked_name", PAIRS)
def test_the_werank_recipe_changes_nothing_but_name_and_regularizers(ranked_name):
    plain_name = ranked_name.replace("_werank_", "_")
    plain, ranked = load(RECIPES / f"{plain_name}.py"), load(RECIPES / f"{ranked_name}.py")
    assert (plain["name"], ranked["name"]) == (plain_name, ranked_name)
    plain, ranked = resolve(plain), resolve(ranked)
    assert plain["regularizers"] == {}
    same = {key: value for key, value in ranked.items() if key not in ("name", "regularizers")}
    assert same == {key: value for key, value in plain.items() if key not in ("name", "regularizers")}
    assert list(ranked["regularizers"]) == ["werank"]
    assert ranked["regularizers"]["werank"]["type"] == "werank"
    assert ranked["regularizers"]["werank"]["squared"] is False


def test_every_recipe_but_the_quickstart_has_a_werank_form():
    plain = {path.stem for path in RECIPES.glob("*.py")} - set(PAIRS) - set(FLOORS) - {"quickstart"}
    assert plain == {name.replace("_werank_", "_") for name in PAIRS}


@pytest.mark.parametrize("floored_name", FLOORS)
def test_a_recipe_with_a_rank_floor_differs_from_the_one_with_a_number_in_the_coefficient_alone(floored_name):
    fixed_name = floored_name.replace("_rank_floor_", "_werank_")
    fixed, floored = (resolve(load(RECIPES / f"{name}.py")) for name in (fixed_name, floored_name))
    assert floored["regularizers"]["werank"].pop("coefficient")["type"] == "rank_floor"
    assert isinstance(fixed["regularizers"]["werank"].pop("coefficient"), float)
    assert {**floored, "name": fixed_name} == fixed


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
