"""claim_09_rank_floor with a floor at the untrained network's rank, target 1, since 0.9 of it was seldom undercut."""

from pathlib import Path
from typing import Any

from sslcollapse.recipe import load

DEFAULT, FULL = dict(type="rank_floor"), dict(type="rank_floor", target=1.0)


def with_full(value: Any) -> Any:
    """The same with the other setting of ``rank_floor``."""
    if value == DEFAULT:
        return FULL
    if isinstance(value, dict):
        return {key: with_full(item) for key, item in value.items()}
    return [with_full(item) for item in value] if isinstance(value, list) else value


ablation = with_full(load(Path(__file__).with_name("claim_09_rank_floor.py"), "ablation"))
ablation |= {"name": "claim_09_full_rank"}
ablation["claim"]["note"] = (
    "rank_floor with target 1 everywhere, against the fixed coefficient that validation chooses for each. "
    "The target was raised after the first seeds of claim_09_rank_floor."
)
