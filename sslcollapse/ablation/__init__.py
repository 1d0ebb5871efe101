"""Ablations: grid × seeds → runs → committed records → tables."""

from __future__ import annotations

from sslcollapse.ablation.drive import run_ablation
from sslcollapse.ablation.tables.page import best_by_validation

__all__ = ["best_by_validation", "run_ablation"]
