"""Optimizers as recipe components: parameter groups, and the learning rate as a function of the step."""

BUILTIN = {
    "optimizer": {
        "adamw": "adamw:AdamW",
        "sgd": "sgd:SGD",
        "lars": "timm:LARS",
        "timm": "timm:TimmOptimizer",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
