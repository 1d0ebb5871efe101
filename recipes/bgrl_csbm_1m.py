"""BGRL on a block model of a million nodes, read from a folder in the data root that was written before.

docs/large-graphs.md says how to write it. No settings of others apply to this graph, and these are not tuned. An epoch
is 976 steps.
"""

recipe = dict(
    name="bgrl_csbm_1m",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="stored", path="graph/packed/csbm-1m"),
        views=dict(edge_drop=[0.3, 0.3], feature_mask=[0.1, 0.1]),
        batching=dict(type="neighbours", batch_size=1024, fanout=[10, 10]),
    ),
    encoder=dict(type="gcn", hidden=[128, 128], norm="layer"),
    objective=dict(type="bgrl", predictor_hidden=128, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, warmup_steps=500, schedule="cosine"),
    train=dict(steps=5000, checkpoint_every=500),
    monitor=dict(every=1000),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
