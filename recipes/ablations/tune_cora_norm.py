"""BatchNorm's running statistics on Cora over three seeds; within one validation node the authors' value stays.

0.99 is the authors' value (in torch's convention), with which the statistics are those of the last augmented view.
"""

ablation = dict(
    name="tune_cora_norm",
    base="../bgrl_cora.py",
    axes={"encoder.hidden": [[512, 512]], "encoder.norm_momentum": [0.99, 0.1, 0.01], "evaluate.random": [None]},
    seeds=3,
)
