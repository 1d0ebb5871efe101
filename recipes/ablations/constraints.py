"""Is a penalty needed where weights are orthogonal by construction? AdamW and Muon, with and without, five seeds.

BGRL on Cora and SimCLR on digits, as the claims' grids have them, with one learning rate for both optimizers, since
Muon's updates are scaled to be as long as AdamW's.
"""

SETTINGS = dict(lr=1e-3, weight_decay=1e-5, warmup_steps=20)

ablation = dict(
    name="constraints",
    base={"BGRL, Cora": "../claims/bgrl_cora.py", "SimCLR, digits": "../claims/simclr_digits.py"},
    axes={
        "optim": [
            dict(type="adamw", **SETTINGS),
            dict(type="timm", name="muon", compute="float32", **SETTINGS),
        ],
        "constraints": [{}, dict(orthogonal=dict(type="orthogonal"))],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"optim": dict(type="adamw", **SETTINGS), "constraints": {}, "regularizers.werank.coefficient": 0.0},
)
