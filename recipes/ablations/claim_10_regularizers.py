"""WERank beside SO, SRIP and VICReg-style covariance: Cora under weak views, three coefficients each, five seeds."""

COEFFICIENTS = {
    "werank": (1e-3, 1e-2, 1e-1),
    "so": (1e-4, 1e-3, 1e-2),
    "srip": (1e-3, 1e-2, 1e-1),
    "covariance": (1e-2, 1e-1, 1.0),
}

ablation = dict(
    name="claim_10_regularizers",
    base="../claims/bgrl_cora.py",
    axes={
        "regularizers": [
            {},
            *(
                {name: dict(type=name, coefficient=coefficient)}
                for name, coefficients in COEFFICIENTS.items()
                for coefficient in coefficients
            ),
        ],
    },
    seeds=5,
    baseline={"regularizers": {}},
)
