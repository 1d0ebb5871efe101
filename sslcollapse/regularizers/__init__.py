"""Regularizers: penalties on weights, layer by layer, or on features, and their coefficients."""

BUILTIN = {
    "regularizer": {
        "werank": "werank:WERankPenalty",
        "so": "orthogonality:SOPenalty",
        "dso": "orthogonality:DSOPenalty",
        "srip": "orthogonality:SRIPPenalty",
        "variance": "variance_covariance:VariancePenalty",
        "covariance": "variance_covariance:CovariancePenalty",
        "sigreg": "sigreg:SIGRegPenalty",
        "ldreg": "ldreg:LDRegPenalty",
    },
    "coefficient": {
        "depth": "coefficients:ByDepth",
        "band": "coefficients:Band",
        "schedule": "coefficients:Scheduled",
        "rank_floor": "rank_floor:RankFloor",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
