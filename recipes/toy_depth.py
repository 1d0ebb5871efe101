"""Two linear layers where one would do: small singular values hardly grow, though views have next to no noise.

Source: Jing et al. 2022, section 5, with the settings of their code.
"""

recipe = dict(
    name="toy_depth",
    seed=0,
    domain=dict(type="toy", dim=16, views=dict(noise=1e-3), batch_size=128),
    encoder=dict(type="linear", hidden=[16, 16], decay=0.35),
    objective=dict(type="simclr", similarity="dot", temperature=0.1, projector=[]),
    regularizers=dict(),
    optim=dict(type="sgd", lr=1e-2, momentum=0.0, weight_decay=0.0, schedule="constant"),
    train=dict(steps=10_000, log_every=100),
    monitor=dict(every=1_000),
    evaluate=dict(),
)
