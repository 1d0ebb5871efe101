"""See, layer by layer, where self-supervised representations lose rank, and prevent it.

Names are imported on first use, so ``import sslcollapse`` costs next to nothing. A plug-in needs no module but this one
and ``sslcollapse.testing``: what is named here stays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcollapse.core.distributed import Gather
    from sslcollapse.core.errors import (
        CollapsedError,
        DataError,
        MissingDataError,
        NonFiniteLossError,
        RecipeError,
        RunError,
        SSLCollapseError,
    )
    from sslcollapse.core.registry import (
        COEFFICIENTS,
        CONSTRAINTS,
        DOMAINS,
        ENCODERS,
        GRAPH_DATASETS,
        OBJECTIVES,
        OPTIMIZERS,
        PROBES,
        REGISTRIES,
        REGULARIZERS,
        VISION_DATASETS,
        Registry,
        RegistryError,
    )
    from sslcollapse.core.seeding import derive_seed, generator
    from sslcollapse.core.types import Batch, Branch, Context, LazyViews, Neighbours, ProbeSet, Split
    from sslcollapse.domains.base import Domain, fraction_split, stratified_split
    from sslcollapse.domains.samples import SampleDomain, Samples
    from sslcollapse.layers.map import Layer, LayerError, layer_coverage, layer_map, weights
    from sslcollapse.nn.heads import Head
    from sslcollapse.objectives.base import Objective
    from sslcollapse.optim.base import OptimizerSpec
    from sslcollapse.probes.base import Outcome, ProbeResult, SplitProbe
    from sslcollapse.probes.splits import SplitChoice
    from sslcollapse.rank.alarm import CollapseAlarm
    from sslcollapse.rank.covariance import StreamingCovariance
    from sslcollapse.rank.depth import smoothness, subspace_overlap
    from sslcollapse.rank.measures import (
        alignment,
        alpha_req,
        effective_rank,
        feature_std,
        lidar,
        local_intrinsic_dimension,
        nesum,
        numerical_rank,
        participation_ratio,
        rankme,
        stable_rank,
        uniformity,
    )
    from sslcollapse.rank.monitor import CollapseMonitor
    from sslcollapse.rank.spectrum import (
        alpha_req_from_singular_values,
        effective_rank_from_singular_values,
        nesum_from_singular_values,
        numerical_rank_from_singular_values,
        participation_ratio_from_singular_values,
        rankme_from_singular_values,
        stable_rank_from_singular_values,
    )
    from sslcollapse.recipe import extend
    from sslcollapse.recipe import load as load_recipe
    from sslcollapse.recipe.schema import (
        Above,
        AtLeast,
        AtMost,
        Between,
        Coefficient,
        Component,
        Distinct,
        Momentum,
        Named,
        Probability,
        Share,
        Weight,
        Width,
    )
    from sslcollapse.regularizers.attach import DSO, SO, SRIP, AttachedPenalty, WERank
    from sslcollapse.regularizers.base import FeaturePenalty, WeightPenalty
    from sslcollapse.regularizers.constraints import Constraint
    from sslcollapse.regularizers.werank import orthogonality_defect
    from sslcollapse.runs.export import load_encoder, plain_state_dict
    from sslcollapse.runs.hub import HubEncoder
    from sslcollapse.training.trainer import train

__version__ = "0.1.0"

_NAMES = {
    "sslcollapse.core.distributed": "Gather",
    "sslcollapse.core.errors": (
        "CollapsedError DataError MissingDataError NonFiniteLossError RecipeError RunError SSLCollapseError"
    ),
    "sslcollapse.core.registry": (
        "COEFFICIENTS CONSTRAINTS DOMAINS ENCODERS GRAPH_DATASETS OBJECTIVES OPTIMIZERS PROBES REGISTRIES REGULARIZERS "
        "Registry RegistryError VISION_DATASETS"
    ),
    "sslcollapse.core.seeding": "derive_seed generator",
    "sslcollapse.core.types": "Batch Branch Context LazyViews Neighbours ProbeSet Split",
    "sslcollapse.domains.base": "Domain fraction_split stratified_split",
    "sslcollapse.domains.samples": "SampleDomain Samples",
    "sslcollapse.layers.map": "Layer LayerError layer_coverage layer_map weights",
    "sslcollapse.nn.heads": "Head",
    "sslcollapse.objectives.base": "Objective",
    "sslcollapse.optim.base": "OptimizerSpec",
    "sslcollapse.probes.base": "Outcome ProbeResult SplitProbe",
    "sslcollapse.probes.splits": "SplitChoice",
    "sslcollapse.rank.alarm": "CollapseAlarm",
    "sslcollapse.rank.covariance": "StreamingCovariance",
    "sslcollapse.rank.depth": "smoothness subspace_overlap",
    "sslcollapse.rank.measures": (
        "alignment alpha_req effective_rank feature_std lidar local_intrinsic_dimension nesum numerical_rank "
        "participation_ratio rankme stable_rank uniformity"
    ),
    "sslcollapse.rank.monitor": "CollapseMonitor",
    "sslcollapse.rank.spectrum": (
        "alpha_req_from_singular_values effective_rank_from_singular_values nesum_from_singular_values "
        "numerical_rank_from_singular_values participation_ratio_from_singular_values "
        "rankme_from_singular_values stable_rank_from_singular_values"
    ),
    "sslcollapse.recipe": "extend",
    "sslcollapse.recipe.schema": (
        "Above AtLeast AtMost Between Coefficient Component Distinct Momentum Named Probability Share Weight Width"
    ),
    "sslcollapse.regularizers.attach": "AttachedPenalty DSO SO SRIP WERank",
    "sslcollapse.regularizers.base": "FeaturePenalty WeightPenalty",
    "sslcollapse.regularizers.constraints": "Constraint",
    "sslcollapse.regularizers.werank": "orthogonality_defect",
    "sslcollapse.runs.export": "load_encoder plain_state_dict",
    "sslcollapse.runs.hub": "HubEncoder",
    "sslcollapse.training.trainer": "train",
}
"""Module → the names that are imported from it."""

_LAZY = {name: (module, name) for module, names in _NAMES.items() for name in names.split()}
_LAZY["load_recipe"] = ("sslcollapse.recipe", "load")

__all__ = [
    "COEFFICIENTS",
    "CONSTRAINTS",
    "DOMAINS",
    "DSO",
    "ENCODERS",
    "GRAPH_DATASETS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PROBES",
    "REGISTRIES",
    "REGULARIZERS",
    "SO",
    "SRIP",
    "VISION_DATASETS",
    "Above",
    "AtLeast",
    "AtMost",
    "AttachedPenalty",
    "Batch",
    "Between",
    "Branch",
    "Coefficient",
    "CollapseAlarm",
    "CollapseMonitor",
    "CollapsedError",
    "Component",
    "Constraint",
    "Context",
    "DataError",
    "Distinct",
    "Domain",
    "FeaturePenalty",
    "Gather",
    "Head",
    "HubEncoder",
    "Layer",
    "LayerError",
    "LazyViews",
    "MissingDataError",
    "Momentum",
    "Named",
    "Neighbours",
    "NonFiniteLossError",
    "Objective",
    "OptimizerSpec",
    "Outcome",
    "Probability",
    "ProbeResult",
    "ProbeSet",
    "RecipeError",
    "Registry",
    "RegistryError",
    "RunError",
    "SSLCollapseError",
    "SampleDomain",
    "Samples",
    "Share",
    "Split",
    "SplitChoice",
    "SplitProbe",
    "StreamingCovariance",
    "WERank",
    "Weight",
    "WeightPenalty",
    "Width",
    "__version__",
    "alignment",
    "alpha_req",
    "alpha_req_from_singular_values",
    "derive_seed",
    "effective_rank",
    "effective_rank_from_singular_values",
    "extend",
    "feature_std",
    "fraction_split",
    "generator",
    "layer_coverage",
    "layer_map",
    "lidar",
    "load_encoder",
    "load_recipe",
    "local_intrinsic_dimension",
    "nesum",
    "nesum_from_singular_values",
    "numerical_rank",
    "numerical_rank_from_singular_values",
    "orthogonality_defect",
    "participation_ratio",
    "participation_ratio_from_singular_values",
    "plain_state_dict",
    "rankme",
    "rankme_from_singular_values",
    "smoothness",
    "stable_rank",
    "stable_rank_from_singular_values",
    "stratified_split",
    "subspace_overlap",
    "train",
    "uniformity",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
