"""Five objectives on digits as images, each with and without WERank at one untuned coefficient: five seeds."""

ablation = dict(
    name="digits",
    base={
        "SimCLR": "../simclr_werank_digits.py",
        "BYOL": "../byol_werank_digits.py",
        "SimSiam": "../simsiam_werank_digits.py",
        "VICReg": "../vicreg_werank_digits.py",
        "Barlow Twins": "../barlow_twins_werank_digits.py",
    },
    axes={"regularizers.werank": [None, dict(type="werank", coefficient=1e-3)]},
    seeds=5,
    baseline={"regularizers.werank": None},
)
