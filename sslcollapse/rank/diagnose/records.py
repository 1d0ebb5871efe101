"""A diagnosis as the JSON that ``--json`` writes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from sslcollapse.rank.diagnose.compare import Change
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, LayerReport
from sslcollapse.rank.diagnose.verdicts import (
    COLLAPSED_BELOW,
    CONDITION_LIMIT,
    DEGRADING_BELOW,
    FEW_DIRECTIONS,
    OUTPUT_DEGRADING_BELOW,
    VERDICTS,
    Judged,
)


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The record that ``--json`` writes; None stands for what is not finite or not measured."""
    record = {
        "target": diagnosis.title,
        "verdict": diagnosis.verdict,
        "counts": {verdict: diagnosis.count(verdict) for verdict in VERDICTS},
        "thresholds": {
            "degrading_below": DEGRADING_BELOW,
            "collapsed_below": COLLAPSED_BELOW,
            "output_degrading_below": OUTPUT_DEGRADING_BELOW,
            "few_directions": FEW_DIRECTIONS,
            "condition_limit": CONDITION_LIMIT,
        },
        "data": diagnosis.data,
        "unmeasured": diagnosis.unmeasured,
        "layers": [_layer_record(layer) for layer in diagnosis.layers],
        "representation": None if diagnosis.representation is None else _output_record(diagnosis.representation),
        "coverage": {
            "parameters": diagnosis.coverage.parameters,
            "covered": diagnosis.coverage.covered,
            "share": diagnosis.coverage.share,
            "uncovered": [asdict(part) for part in diagnosis.coverage.uncovered],
        },
        "since": None if diagnosis.falls is None else [asdict(fall) for fall in diagnosis.falls],
        "against": None
        if diagnosis.against is None
        else {
            "target": diagnosis.against,
            "changes": [change_record(change) for change in diagnosis.changes],
            "unmatched": list(diagnosis.unmatched),
        },
    }
    return {name: finite_only(value) for name, value in record.items()}


def change_record(change: Change) -> dict[str, Any]:
    """One layer of a comparison, without its spectra."""
    names = ["layer", "kind", "shape", "change", "rank_before", "rank_after", "rank_of_change"]
    names += ["stable_before", "stable_after", "stable_of_change", "intruders", "angles"]
    return {name: finite_only(getattr(change, name)) for name in names}


def _layer_record(layer: LayerReport) -> dict[str, Any]:
    return {
        "name": layer.name,
        "depth": layer.depth,
        "verdict": layer.verdict,
        "weight": _weight_record(layer.weight),
        "output": None if layer.output is None else _output_record(layer.output),
    }


def _weight_record(weight: Judged) -> dict[str, Any]:
    rank = weight.rank
    return {
        "shape": weight.shape,
        "attainable": rank.attainable,
        "reference": weight.reference,
        "effective_rank": rank.effective_rank if rank.finite else None,
        "stable_rank": rank.stable_rank if rank.finite else None,
        "numerical_rank": rank.numerical_rank if rank.finite else None,
        "condition": weight.condition,
        "orthogonality_defect": weight.orthogonality_defect,
        "verdict": weight.verdict,
        "reason": weight.reason,
        "columns": dict(weight.columns),
    }


def _output_record(output: Judged) -> dict[str, Any]:
    rank = output.rank
    return {
        "n": rank.n,
        "attainable": rank.reachable,
        "reference": output.reference,
        "effective_rank": rank.effective_rank,
        "effective_rank_centred": rank.effective_rank_centred,
        "verdict": output.verdict,
        "reason": output.reason,
    }


def finite_only(value: Any) -> Any:
    """The same with None in place of numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(finite_only, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
