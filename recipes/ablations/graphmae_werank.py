"""GraphMAE with and without WERank: does a network that reconstructs lose rank, and does WERank then change anything?

The coefficient is not tuned: 1e-3 and 1e-2 are both shown.
"""

ablation = dict(
    name="graphmae_werank",
    base={"Cora": "../graphmae_werank_cora.py", "CiteSeer": "../graphmae_werank_citeseer.py"},
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2]},
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    metrics=["evaluation.public.test_accuracy", "rank.representation.effective_rank"],
)
