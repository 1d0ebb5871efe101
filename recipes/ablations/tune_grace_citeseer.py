"""GRACE's number of steps and weight decay on CiteSeer, by *validation* accuracy: its authors' 200 steps, and fewer."""

ablation = dict(
    name="tune_grace_citeseer",
    base="../grace_citeseer.py",
    axes={("train.steps", "optim.decoupled"): [(50, True), (100, True), (200, True), (200, False)]},
    seeds=3,
)
