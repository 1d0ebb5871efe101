"""Five objectives on digits as images, with and without WERank: five seeds."""

ablation = dict(
    name="digits",
    base={
        "SimCLR": "../simclr_digits.py",
        "BYOL": "../byol_digits.py",
        "SimSiam": "../simsiam_digits.py",
        "VICReg": "../vicreg_digits.py",
        "Barlow Twins": "../barlow_twins_digits.py",
        "SimCLR + WERank": "../simclr_werank_digits.py",
        "BYOL + WERank": "../byol_werank_digits.py",
        "SimSiam + WERank": "../simsiam_werank_digits.py",
        "VICReg + WERank": "../vicreg_werank_digits.py",
        "Barlow Twins + WERank": "../barlow_twins_werank_digits.py",
    },
    seeds=5,
)
