"""The page of all methods: what each is, from which paper, where it is, what shows that it is right, what was measured."""

from __future__ import annotations

import csv
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sslcollapse import REGISTRIES
from sslcollapse.recipe import load

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "objective": "Objectives",
    "regularizer": "Regularizers",
    "constraint": "Constraints",
    "coefficient": "Coefficients",
    "encoder": "Encoders",
}
BYOL, SIMCLR, VICREG = (f"tests/objectives/test_{name}.py" for name in ("byol", "simclr", "vicreg"))
ORTHOGONALITY = "tests/regularizers/test_orthogonality.py"
EQUALITY = {
    "objective bgrl": "tests/objectives/test_bgrl.py::test_loss_is_two_minus_the_two_crossed_cosines_and_sends_no_gradient_to_the_target",
    "objective byol": f"{BYOL}::test_mean_cosine_is_minus_the_loss_of_lightly_with_its_gradient",
    "objective simsiam": f"{BYOL}::test_simsiam_is_lightly_s_symmetric_loss_plus_one_and_stops_the_gradient_at_embeddings",
    "objective simclr": f"{SIMCLR}::test_values_and_gradients_are_those_of_lightly",
    "objective vicreg": f"{VICREG}::test_vicreg_has_the_values_and_gradients_of_lightly",
    "objective barlow_twins": f"{VICREG}::test_barlow_twins_on_one_process_is_the_loss_of_lightly",
    "objective cca_ssg": f"{VICREG}::test_cca_ssg_is_its_authors_loss_plus_the_width_with_the_same_gradients",
    "objective lightly": "tests/objectives/test_lightly.py::test_a_loss_of_two_views_is_lightlys_own",
    "regularizer werank": "tests/regularizers/test_werank.py::test_closed_form_value_and_gradient_equal_autograd_of_the_definition",
    "regularizer so": f"{ORTHOGONALITY}::test_so_is_the_squared_norm_of_the_output_gram_minus_the_identity",
    "regularizer dso": f"{ORTHOGONALITY}::test_dso_is_the_sum_for_both_grams_and_its_gradient_twice_that_of_so",
    "regularizer srip": f"{ORTHOGONALITY}::test_srip_converges_to_the_spectral_norm_of_the_gram_minus_the_identity",
    "regularizer variance": "tests/regularizers/test_feature_penalties.py::test_values_and_gradients_are_means_over_views_of_those_of_lightly",
    "regularizer covariance": "tests/regularizers/test_feature_penalties.py::test_values_and_gradients_are_means_over_views_of_those_of_lightly",
    "regularizer sigreg": "tests/regularizers/test_gaussianity.py::test_the_distance_is_the_integral_over_characteristic_functions",
    "regularizer ldreg": "tests/regularizers/test_dimension.py::test_the_penalty_is_minus_the_log_of_the_dimension_a_mean_over_views",
    "constraint retraction": "tests/regularizers/test_constraints.py::test_the_polar_factor_has_singular_values_of_one_and_is_the_nearest_such_matrix",
    "coefficient rank_floor": "tests/regularizers/test_rank_floor.py::test_a_coefficient_rises_by_up_below_the_floor_and_falls_by_down_otherwise_after_the_first_reading",
    "encoder gcn": "tests/encoders/test_encoders.py::test_gcn_is_the_authors_encoder_convolution_batchnorm_prelu_after_every_layer",
    "objective graphmae": "tests/objectives/test_graphmae.py::test_the_loss_is_the_mean_over_nodes_of_a_power_of_one_minus_the_cosine",
    "encoder gat": "tests/encoders/test_gat.py::test_attention_and_its_gradients_are_those_of_pytorch_geometric",
    "encoder sage": "tests/encoders/test_encoders.py::test_sage_is_the_authors_encoder_with_skips_from_the_input",
    "encoder linear": "tests/encoders/test_initial_spectrum.py::test_a_linear_network_is_the_product_of_its_weights_and_starts_with_the_same_spectra_again",
    "encoder resnet18": "tests/encoders/test_vision_encoders.py::test_resnet18_without_its_classifier_is_torchvisions",
    "encoder pyg": "tests/encoders/test_encoders.py::test_pyg_adapter_runs_a_library_model_on_the_dropped_edges",
}
"""Kind and name → the test that holds it against its authors' code, another library, or its formula."""

PLAIN = {"regularizers.werank": "None"}
CORA = "Cora, weak views, 200 steps"
MEASURED: dict[str, tuple[str, str, dict[str, str], str]] = {
    "objective bgrl": ("werank_cora", "public", {"base": "BGRL"}, "Cora"),
    "objective byol": ("digits", "knn", {"base": "BYOL", **PLAIN}, "digits as images"),
    "objective simsiam": ("digits", "knn", {"base": "SimSiam", **PLAIN}, "digits as images"),
    "objective simclr": ("digits", "knn", {"base": "SimCLR", **PLAIN}, "digits as images"),
    "objective vicreg": ("digits", "knn", {"base": "VICReg", **PLAIN}, "digits as images"),
    "objective barlow_twins": ("digits", "knn", {"base": "Barlow Twins", **PLAIN}, "digits as images"),
    "objective cca_ssg": ("objectives_citation", "public", {"base": "CCA-SSG, Cora", **PLAIN}, "Cora"),
    "regularizer werank": ("werank_cora", "public", {"base": "BGRL + WERank"}, "Cora, BGRL"),
    "regularizer so": (
        "claim_10_regularizers",
        "public",
        {"regularizers": "'type': 'so', 'coefficient': 0.001}"},
        CORA,
    ),
    "regularizer srip": ("claim_10_regularizers", "public", {"regularizers": "'srip', 'coefficient': 0.01}"}, CORA),
    "regularizer covariance": (
        "claim_10_regularizers",
        "public",
        {"regularizers": "'covariance', 'coefficient': 0.001}"},
        CORA,
    ),
    "coefficient rank_floor": (
        "claim_09_rank_floor",
        "public",
        {"base": "Cora", "regularizers.werank.coefficient": "'rank_floor'"},
        CORA,
    ),
    "encoder gcn": ("werank_cora", "public", {"base": "BGRL"}, "Cora, BGRL"),
    "encoder resnet_narrow": ("digits", "knn", {"base": "SimCLR", **PLAIN}, "digits as images, SimCLR"),
}
"""Kind and name → folder of records, probe, what the row of its table has, and on what, in words."""


def page() -> str:
    """The Markdown of docs/methods.md."""
    parts = [
        "# All methods",
        "",
        "<!-- Written by `python tools/docs.py methods`; a test compares. -->",
        "",
        "What there is, from which paper, in which file; the recipes that use it; the test that holds it against its authors' code, "
        "another library or its formula; and what was measured: accuracy in %, mean ± standard deviation over seeds, beside that "
        "of the untrained encoder. A dash says that there is none yet. Settings and budgets differ between rows: they are no ranking.",
    ]
    for kind, title in KINDS.items():
        parts += ["", f"## {title}", ""]
        parts += ["| | paper | file | recipes | held by | measured |", "|---|---|---|---|---|---|"]
        ours = [name for name in REGISTRIES[kind].names() if REGISTRIES[kind]._targets[name].startswith("sslcollapse.")]
        parts += [row(kind, name) for name in ours]
    return "\n".join(parts) + "\n"


def row(kind: str, name: str) -> str:
    """One method."""
    cells = [
        f"`{name}`",
        paper(kind, name),
        file(kind, name),
        recipes(kind, name),
        test(kind, name),
        measured(kind, name),
    ]
    return f"| {' | '.join(cell or '–' for cell in cells)} |"


def paper(kind: str, name: str) -> str:
    """What the docstring of a method, or of its file, says that it is from."""
    method = REGISTRIES[kind].get(name)
    for text in (inspect.getdoc(method), inspect.getdoc(importlib.import_module(method.__module__))):
        if found := re.search(r"Source: (.*?)(?:\n\n|$)", text or "", re.DOTALL):
            return re.split(r"\. (?=[A-Z])", " ".join(found[1].split()))[0].rstrip(".").replace("|", "\\|")
    named = re.search(r"\(([A-Z][^()]* (?:19|20)\d\d)\)", (inspect.getdoc(method) or "").partition("\n")[0])
    return named[1] if named else ""


def file(kind: str, name: str) -> str:
    """Where it is."""
    return f"`{REGISTRIES[kind]._targets[name].partition(':')[0].replace('.', '/')}.py`"


@cache
def users() -> dict[str, list[str]]:
    """Kind and name → recipes with it, the shortest name first."""
    found = defaultdict(list)
    for path in sorted((ROOT / "recipes").glob("*.py"), key=lambda path: (len(path.stem), path.stem)):
        for used in set(types(load(path))):
            found[used].append(path.name)
    return found


def types(recipe: dict[str, Any]) -> Iterator[str]:
    """Kinds and names of the methods of a recipe."""
    for kind in ("objective", "encoder"):
        yield f"{kind} {recipe[kind]['type']}"
    for plural, kind in (("regularizers", "regularizer"), ("constraints", "constraint")):
        for part in (recipe.get(plural) or {}).values():
            if part:
                yield f"{kind} {part['type']}"
                coefficient = part.get("coefficient")
                if isinstance(coefficient, dict) and "type" in coefficient:
                    yield f"coefficient {coefficient['type']}"


def recipes(kind: str, name: str) -> str:
    """The first two recipes, and how many more there are."""
    there = users()[f"{kind} {name}"]
    more = f" and {len(there) - 2} more" if len(there) > 2 else ""
    return ", ".join(f"[{known}](../recipes/{known})" for known in there[:2]) + more


def test(kind: str, name: str) -> str:
    """The test, as words and file."""
    place, _, what = EQUALITY.get(f"{kind} {name}", "").partition("::")
    return f"{what.removeprefix('test_').replace('_', ' ')} (`{place}`)" if what else ""


def measured(kind: str, name: str) -> str:
    """Accuracy of one row of a table of records."""
    if f"{kind} {name}" not in MEASURED:
        return ""
    folder, probe, wanted, words = MEASURED[f"{kind} {name}"]
    with (ROOT / "docs/results" / folder / "table.csv").open(encoding="utf-8", newline="") as lines:
        fits = [
            line
            for line in csv.DictReader(lines)
            if all(line[key] == value or ("'" in value and value in line[key]) for key, value in wanted.items())
        ]
    if len(fits) != 1:
        raise SystemExit(f"{kind} {name}: {len(fits)} rows of docs/results/{folder}/table.csv have {wanted}; say which")
    accuracy, untrained = (
        f"{percent(fits[0], f'{when}.{probe}.test_accuracy')}" for when in ("evaluation", "untrained")
    )
    return (
        f"{accuracy} (untrained {untrained}); {words}, {fits[0]['seeds']} seeds, [{folder}](results/{folder}/README.md)"
    )


def percent(line: dict[str, str], metric: str) -> str:
    """A mean with its standard deviation."""
    spread = line[f"{metric}:std"]
    return f"{100 * float(line[f'{metric}:mean']):.2f}" + (f" ± {100 * float(spread):.2f}" if spread else "")
