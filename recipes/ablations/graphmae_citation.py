"""GraphMAE on Cora and CiteSeer at its authors' settings: ten seeds, on the public split."""

ablation = dict(
    name="graphmae_citation",
    base={"CiteSeer": "../graphmae_citeseer.py", "Cora": "../graphmae_cora.py"},
    axes={},
    seeds=10,
    metrics=["evaluation.public.test_accuracy", "rank.representation.effective_rank"],
)
