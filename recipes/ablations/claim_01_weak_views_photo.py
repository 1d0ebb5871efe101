"""WERank under weak views on Amazon Photo: five coefficients, three seeds of five random splits."""

ablation = dict(
    name="claim_01_weak_views_photo",
    base={"Photo": "../claims/bgrl_photo.py"},
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
)
