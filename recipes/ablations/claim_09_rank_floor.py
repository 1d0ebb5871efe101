"""A coefficient that follows the measured rank, one setting for all, against fixed ones: five datasets, five seeds."""

FIXED, FLOOR = [1e-3, 1e-2, 1e-1], dict(type="rank_floor")
GRAPHS = ["Cora", "CiteSeer", "digits as a graph", "block model"]
COEFFICIENT = "regularizers.werank.coefficient"


def checks(place, bases, metric):
    """Near the best fixed coefficient, and above none."""
    where = {"base": bases}
    return [
        dict(
            name=f"at most a point below the best fixed coefficient, {place}",
            metric=metric,
            where=where,
            cell={COEFFICIENT: FLOOR},
            against={COEFFICIENT: FIXED},
            select="validation",
            expect="not negative",
            margin=1.0,
        ),
        dict(
            name=f"better than no WERank, {place}",
            metric=metric,
            where=where,
            cell={COEFFICIENT: FLOOR},
            against={COEFFICIENT: 0.0},
            expect="positive",
        ),
    ]


ablation = dict(
    name="claim_09_rank_floor",
    base={
        "Cora": "../claims/bgrl_cora.py",
        "CiteSeer": "../claims/bgrl_citeseer.py",
        "digits as a graph": "../claims/bgrl_digits.py",
        "block model": "../claims/bgrl_csbm_32.py",
        "digits as images": "../claims/simclr_digits.py",
    },
    axes={COEFFICIENT: [0.0, *FIXED, FLOOR]},
    seeds=5,
    baseline={COEFFICIENT: 0.0},
    claim=dict(
        number=9,
        statement="A coefficient that adapts to measured rank removes the tuning.",
        note="The defaults of rank_floor everywhere, against the fixed coefficient that validation chooses for each.",
        checks=[
            *checks("graphs", GRAPHS, "evaluation.public.test_accuracy"),
            *checks("images", ["digits as images"], "evaluation.knn.test_accuracy"),
        ],
    ),
)
