"""Noise in half of the dimensions collapses them: a linear map trained by InfoNCE on normal data, no download.

Source: Jing et al. 2022, section 4, with the settings of their code; collapse at noise 1.5.
"""

recipe = dict(
    name="toy_noise",
    seed=0,
    domain=dict(type="toy", dim=16, views=dict(noise=1.5, dims=8), batch_size=128),
    encoder=dict(type="linear", hidden=[16], bias=True),
    objective=dict(type="simclr", similarity="dot", temperature=0.1, projector=[]),
    regularizers=dict(),
    optim=dict(type="sgd", lr=1e-3, momentum=0.0, weight_decay=0.0, schedule="constant"),
    train=dict(steps=10_000, log_every=100),
    monitor=dict(every=1_000),
    evaluate=dict(),
)
