"""Recipes of large graphs, on small ones that are packed as theirs are, and without any."""

from pathlib import Path

import pytest
import torch

from sslcollapse.core.errors import MissingDataError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.recipe import load, resolve
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.dry_run import dry_run

RECIPES = Path(__file__).parents[2] / "recipes"
STORED = [
    name
    for method, graphs in {
        "bgrl": ["products", "papers100m", "csbm_1m", "csbm_10m"],
        "grace": ["products", "csbm_1m"],
    }.items()
    for graph in graphs
    for name in (f"{method}_{graph}", f"{method}_werank_{graph}")
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    dataset = dict(type="csbm", nodes=150, features=10, train_per_class=5, validation_per_class=5)
    GraphDomain(folder, dataset=dataset).pack(folder / "graph")
    return folder / "graph"


@pytest.mark.parametrize("name", STORED)
def test_a_step_of_the_recipe_runs_on_a_packed_graph(name, packed):
    changes = [f'domain.dataset={{"type": "stored", "path": "{packed}"}}', "domain.batching.batch_size=16"]
    recipe = resolve(load(RECIPES / f"{name}.py"), changes)
    dry_run(recipe, "0" * 8)
    domain = build_domain(recipe)
    domain.check(8)
    domain.load()
    module = build_module(recipe, domain)
    batches = domain.batches(0, Context())
    parts = module(next(batches), 0)
    assert torch.isfinite(parts["loss"])
    assert ("werank" in str(parts)) == ("werank" in name)
    assert len(recipe["domain"]["batching"]["fanout"]) == len(recipe["encoder"]["hidden"])
    batches.close()


@pytest.mark.parametrize("name", STORED)
def test_a_graph_that_was_not_packed_is_told_with_the_command_that_packs_it(name, tmp_path):
    recipe = resolve(load(RECIPES / f"{name}.py"), [f"data_root={tmp_path}"])
    with pytest.raises(MissingDataError, match=r"graph/packed/\S+: holds no stored graph .*sslcollapse graph pack"):
        dry_run(recipe, "0" * 8)


@pytest.mark.parametrize("name", ["bgrl_arxiv_sampled", "bgrl_werank_arxiv_sampled"])
def test_arxiv_sampled_differs_from_arxiv_in_batches_and_normalisation_alone(name):
    sampled = resolve(load(RECIPES / f"{name}.py"))
    full = resolve(load(RECIPES / f"{name.removesuffix('_sampled')}.py"))
    assert sampled["domain"].pop("batching")["type"] == "neighbours"
    full["domain"].pop("batching", None)
    assert (sampled["encoder"].pop("norm"), full["encoder"].pop("norm")) == ("layer", "graph")
    assert {**sampled, "name": full["name"]} == full
    dry_run(resolve(load(RECIPES / f"{name}.py")), "0" * 8)
