"""Regularizers: penalties on weights, layer by layer, or on features, and their coefficients; and constraints."""

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
    "constraint": {
        "orthogonal": "constraints:Orthogonal",
        "spectral_norm": "constraints:SpectralNorm",
        "retraction": "constraints:Retraction",
    },
    "coefficient": {
        "depth": "coefficients:ByDepth",
        "band": "coefficients:Band",
        "schedule": "coefficients:Scheduled",
        "rank_floor": "rank_floor:RankFloor",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
