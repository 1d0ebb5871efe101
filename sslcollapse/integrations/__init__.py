"""Adapters to other people's training frameworks; each needs its framework only when it is imported.

from sslcollapse.integrations import CollapseCallback, EffectiveRank
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcollapse.integrations.lightning import CollapseCallback
    from sslcollapse.integrations.torchmetrics import EffectiveRank

_LAZY = {
    "CollapseCallback": "sslcollapse.integrations.lightning",
    "EffectiveRank": "sslcollapse.integrations.torchmetrics",
}

__all__ = ["CollapseCallback", "EffectiveRank"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
