"""GRACE's number of steps on CiteSeer, chosen on *validation* accuracy: its authors' 200, and fewer."""

ablation = dict(
    name="tune_grace_citeseer",
    base="../grace_citeseer.py",
    axes={"train.steps": [50, 100, 200]},
    seeds=3,
)
