"""sampled_training on Amazon Photo: 100 passes, 14 steps a pass of 512 roots, or of 1 of 14 random parts."""

from pathlib import Path

from sslcollapse.recipe import load

PASSES, A_PASS = 100, 14
ACCURACY = "evaluation.random.test_accuracy"

ablation = load(Path(__file__).with_name("sampled_training.py"), "ablation")
(paths,) = ablation["axes"]
steps = PASSES * A_PASS
values = [
    (dict(type="full"), PASSES, PASSES // 5),
    (dict(type="neighbours", batch_size=512, fanout=[10, 10]), steps, steps // 5),
    (dict(type="parts", parts=A_PASS, per_batch=1), steps, steps // 5),
]
of = [dict(zip(paths, value, strict=True)) for value in values]
ablation |= dict(
    name="sampled_training_photo", base={"Photo": "../claims/bgrl_photo.py"}, axes={paths: values}, baseline=of[0]
)
ablation["metrics"] = [ACCURACY, *ablation["metrics"][1:]]
(check,) = ablation["claim"]["checks"]
check |= dict(metric=ACCURACY, cell=of[1], against=of[0])
