"""Evaluation on frozen representations: splits, metrics and probes."""

BUILTIN = {
    "probe": {
        "logistic": "logistic:LogisticProbe",
        "knn": "knn:KNNProbe",
        "linear": "linear:LinearProbe",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""

METRICS = ("accuracy", "micro_f1", "roc_auc")
"""Of the probes here; a result has them as ``test_accuracy`` and ``validation_accuracy``."""
