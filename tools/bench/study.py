"""The study of the claims, file after file, in the order in which it is worth running; ``bench gpu`` runs it so."""

from __future__ import annotations

STUDY = (
    "claim_00_depth",
    "claim_00_depth_rivals",
    "claim_00_depth_mechanism",  # has the runs of the one before it
    "claim_00_depth_norm",
    "claim_00_depth_views",
    "claim_00_depth_objectives",
    "claim_00_depth_images",
    "claim_02_constraint",
    "claim_01_turned_over",
    "claim_01_turned_over_photo",
    "claim_05_drift",
    "claim_05_repair_spectrum",
    "claim_09_against_constant",
    "claim_11_one_model",
    "claim_04_equal_total",
    "claim_04_equal_total_two",
    "claim_06_strong_masks",
    "claim_10_equivalence",
    "claim_03_views_apart",
    "claim_07_redundancy",
    "claim_08_digits",
    "claim_02_arxiv",
)
"""Files of ``recipes/ablations``: claims 0, 2, 1 and 5 first, then those that need fewer hours."""

MEASURED = ("claim_00_depth_rivals", "claim_00_depth_mechanism")
"""Those whose runs are measured on the way; the others are faster with ``monitor.every=0``."""

ASKED_AGAIN = {
    "claim_01_weak_views": "claim_01_turned_over",
    "claim_01_weak_views_photo": "claim_01_turned_over_photo",
    "claim_02_block_model": "claim_02_constraint",
    "claim_02_larger_graphs": "claim_02_constraint",
    "claim_03_view_strength": "claim_03_views_apart",
    "claim_04_layers": "claim_04_equal_total",
    "claim_04_stages": "claim_04_equal_total",
    "claim_05_repair": "claim_05_repair_spectrum",
    "claim_05_width": "claim_05_drift",
    "claim_06_feature_mask": "claim_06_strong_masks",
    "claim_09_full_rank": "claim_09_against_constant",
    "claim_09_rank_floor": "claim_09_against_constant",
    "claim_10_regularizers": "claim_10_equivalence",
    "claim_11_few_features": "claim_11_one_model",
}
"""Files of the first version → what asks their question now; their records stay."""


PUBLISHED = {
    "published_photo": "bgrl_werank_photo",
    "published_computers": "bgrl_werank_computers",
    "published_cs": "bgrl_werank_cs",
    "published_wikics": "bgrl_werank_wikics",
    "published_physics": "bgrl_werank_physics",
    "published_pubmed": "bgrl_werank_pubmed",
    "published_arxiv": "bgrl_werank_arxiv",
    "published_cifar10": "simclr_werank_cifar10",
}
"""Results folder → recipe: BGRL at its authors' settings and budgets, PubMed at Cora's,
and SimCLR on CIFAR-10 at full length.

Each is a command of its own, so that a data set that is not there, or cannot be downloaded, fails alone.
"""
COEFFICIENTS = {name: "1e-2" for name in PUBLISHED} | {"published_cifar10": "1e-3"}
PUBLISHED_SEEDS = dict.fromkeys(PUBLISHED, 20) | {"published_cifar10": 5}


def published(name: str) -> tuple[str, ...]:
    """What ``ablate`` is told to run a recipe at published settings with and without WERank, at its own coefficient."""
    recipe = f"recipes/{PUBLISHED[name]}.py"
    grid = ("--grid", f"regularizers.werank.coefficient=0.0,{COEFFICIENTS[name]}")
    against = ("--baseline", "regularizers.werank.coefficient=0.0")
    return (recipe, *grid, *against, "--seeds", str(PUBLISHED_SEEDS[name]), "--name", name, "monitor.every=0")


def words(name: str) -> tuple[str, ...]:
    """What ``ablate`` is told to run a file of the study; without measurements on the way where nothing needs them."""
    path = f"recipes/ablations/{name}.py"
    return (path,) if name in MEASURED else (path, "monitor.every=0")
