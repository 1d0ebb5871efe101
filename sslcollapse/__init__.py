"""See, layer by layer, where self-supervised representations lose rank, and prevent it.

Names are imported on first use, so ``import sslcollapse`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcollapse.recipe import extend as extend
    from sslcollapse.recipe import load as load_recipe
    from sslcollapse.registry import (
        COEFFICIENTS,
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
    from sslcollapse.trainer import train

__version__ = "0.1.0"

_REGISTRY = "sslcollapse.registry"
_LAZY = {
    "COEFFICIENTS": (_REGISTRY, "COEFFICIENTS"),
    "DOMAINS": (_REGISTRY, "DOMAINS"),
    "ENCODERS": (_REGISTRY, "ENCODERS"),
    "GRAPH_DATASETS": (_REGISTRY, "GRAPH_DATASETS"),
    "OBJECTIVES": (_REGISTRY, "OBJECTIVES"),
    "OPTIMIZERS": (_REGISTRY, "OPTIMIZERS"),
    "PROBES": (_REGISTRY, "PROBES"),
    "REGISTRIES": (_REGISTRY, "REGISTRIES"),
    "REGULARIZERS": (_REGISTRY, "REGULARIZERS"),
    "VISION_DATASETS": (_REGISTRY, "VISION_DATASETS"),
    "extend": ("sslcollapse.recipe", "extend"),
    "load_recipe": ("sslcollapse.recipe", "load"),
    "train": ("sslcollapse.trainer", "train"),
}

__all__ = [
    "COEFFICIENTS",
    "DOMAINS",
    "ENCODERS",
    "GRAPH_DATASETS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PROBES",
    "REGISTRIES",
    "REGULARIZERS",
    "VISION_DATASETS",
    "__version__",
    "extend",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
