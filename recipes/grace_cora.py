"""GRACE (Zhu et al. 2020) on Cora: NT-Xent between the nodes of two views.

Its authors' settings but for the width: theirs is 256-128 with a projector of 128; twice that was better on
*validation* (docs/results/tuning.md).
"""

recipe = dict(
    name="grace_cora",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="Cora"),
        views=dict(edge_drop=[0.2, 0.4], feature_mask=[0.3, 0.4]),
    ),
    encoder=dict(type="gcn", hidden=[512, 256], norm="none", activation="relu", final_activation="relu"),
    objective=dict(type="simclr", temperature=0.4, projector=[256, 256], norm="none", activation="elu"),
    regularizers=dict(),
    optim=dict(type="adamw", lr=5e-4, weight_decay=1e-5, decoupled=False, schedule="constant"),
    train=dict(steps=200, checkpoint_every=100),
    monitor=dict(every=50),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        one_vs_rest=dict(type="logistic", split="public", solver="liblinear"),
    ),
)
