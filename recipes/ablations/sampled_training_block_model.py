"""sampled_training on the block model of claims: 20 passes, 82 steps a pass of 2,048 roots, or of 1 of 82 parts."""

from pathlib import Path

from sslcollapse.recipe import load

PASSES, A_PASS = 20, 82

ablation = load(Path(__file__).with_name("sampled_training.py"), "ablation")
(paths,) = ablation["axes"]
steps = PASSES * A_PASS
values = [
    (dict(type="full"), PASSES, PASSES // 4),
    (dict(type="neighbours", batch_size=2048, fanout=[10, 10]), steps, steps // 4),
    (dict(type="parts", parts=A_PASS, per_batch=1), steps, steps // 4),
]
of = [dict(zip(paths, value, strict=True)) for value in values]
ablation |= dict(
    name="sampled_training_block_model",
    base={"block model": "../claims/bgrl_csbm_large.py"},
    axes={paths: values},
    baseline=of[0],
)
(check,) = ablation["claim"]["checks"]
check |= dict(cell=of[1], against=of[0])
