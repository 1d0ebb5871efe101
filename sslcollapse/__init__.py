"""See, layer by layer, where self-supervised representations lose rank, and prevent it.

Names are imported on first use, so ``import sslcollapse`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    )
    from sslcollapse.layers.map import layer_coverage, layer_map
    from sslcollapse.rank.covariance import StreamingCovariance
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
    from sslcollapse.regularizers.attach import DSO, SO, SRIP, AttachedPenalty, WERank
    from sslcollapse.regularizers.werank import orthogonality_defect
    from sslcollapse.runs.export import load_encoder, plain_state_dict
    from sslcollapse.runs.hub import HubEncoder
    from sslcollapse.training.trainer import train

__version__ = "0.1.0"

_ATTRIBUTES = {
    "sslcollapse.rank.covariance": ["StreamingCovariance"],
    "sslcollapse.rank.measures": [
        "alignment",
        "alpha_req",
        "effective_rank",
        "feature_std",
        "lidar",
        "local_intrinsic_dimension",
        "nesum",
        "numerical_rank",
        "participation_ratio",
        "rankme",
        "stable_rank",
        "uniformity",
    ],
    "sslcollapse.rank.monitor": ["CollapseMonitor"],
    "sslcollapse.rank.spectrum": [
        "alpha_req_from_singular_values",
        "effective_rank_from_singular_values",
        "nesum_from_singular_values",
        "numerical_rank_from_singular_values",
        "participation_ratio_from_singular_values",
        "rankme_from_singular_values",
        "stable_rank_from_singular_values",
    ],
    "sslcollapse.runs.export": ["load_encoder", "plain_state_dict"],
    "sslcollapse.runs.hub": ["HubEncoder"],
    "sslcollapse.layers.map": ["layer_coverage", "layer_map"],
    "sslcollapse.recipe": ["extend"],
    "sslcollapse.core.registry": [
        "COEFFICIENTS",
        "CONSTRAINTS",
        "DOMAINS",
        "ENCODERS",
        "GRAPH_DATASETS",
        "OBJECTIVES",
        "OPTIMIZERS",
        "PROBES",
        "REGISTRIES",
        "REGULARIZERS",
        "VISION_DATASETS",
    ],
    "sslcollapse.regularizers.attach": ["AttachedPenalty", "DSO", "SO", "SRIP", "WERank"],
    "sslcollapse.regularizers.werank": ["orthogonality_defect"],
    "sslcollapse.training.trainer": ["train"],
}
"""Module → what is imported from it under its own name."""

_LAZY = {name: (module, name) for module, names in _ATTRIBUTES.items() for name in names}
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
    "AttachedPenalty",
    "CollapseMonitor",
    "HubEncoder",
    "StreamingCovariance",
    "WERank",
    "__version__",
    "alignment",
    "alpha_req",
    "alpha_req_from_singular_values",
    "effective_rank",
    "effective_rank_from_singular_values",
    "extend",
    "feature_std",
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
    "stable_rank",
    "stable_rank_from_singular_values",
    "train",
    "uniformity",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
