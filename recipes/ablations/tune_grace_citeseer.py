"""GRACE's number of steps on CiteSeer, chosen on *validation* accuracy: fewer than its authors' 200."""

ablation = dict(
    name="tune_grace_citeseer",
    base="../grace_citeseer.py",
    axes={"train.steps": [50, 100]},
    seeds=3,
)
