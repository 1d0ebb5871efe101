"""WERank in vision: SimCLR and BYOL on digits, three strengths of views, five seeds."""

ablation = dict(
    name="claim_08_digits",
    base={"SimCLR": "../claims/simclr_digits.py", "BYOL": "../claims/byol_digits.py"},
    axes={
        "domain.views.strength": [0.2, 0.6, 1.0],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
)
