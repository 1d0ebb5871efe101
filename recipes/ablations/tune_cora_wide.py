"""Wider encoders on Cora over three seeds: the best mean *validation* accuracy wins."""

ablation = dict(
    name="tune_cora_wide",
    base="../bgrl_cora.py",
    axes={"encoder.hidden": [[512, 512], [1024, 512], [512, 1024]], "evaluate.random": [None]},
    seeds=3,
)
