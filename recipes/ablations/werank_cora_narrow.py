"""The comparison of werank_cora with a narrower encoder and the coefficient that was chosen for it."""

ablation = dict(
    name="werank_cora_narrow",
    base="../bgrl_cora.py",
    axes={
        ("name", "regularizers"): [
            ("bgrl_cora", {}),
            ("bgrl_werank_cora", dict(werank=dict(type="werank", coefficient=1e-3))),
        ],
        "encoder.hidden": [[512, 512]],
        "evaluate.random": [None],
    },
    seeds=10,
    baseline={"name": "bgrl_cora", "regularizers": {}},
)
