"""A rank floor in two processes; imported by name in each spawned process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from workers import start

from sslcollapse.core.types import Batch
from sslcollapse.encoders.mlp import MLP
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.rank.measure import Observation
from sslcollapse.regularizers.rank_floor import asked, due
from sslcollapse.regularizers.variance_covariance import VariancePenalty
from sslcollapse.regularizers.werank import WERankPenalty
from sslcollapse.training.module import SSLModule


def image_module(norm="none", feature=None, **floor):
    """SimCLR on images of 1 × 4 × 4, with a rank floor on the weights, or on features."""
    torch.manual_seed(0)
    coefficient = {"type": "rank_floor", "smoothing": 0.0, **floor}
    penalty = WERankPenalty(coefficient=coefficient)
    regularizers = {"werank": penalty}
    if feature is not None:
        regularizers["variance"] = VariancePenalty(coefficient={**coefficient, "per": "layer"}, on=[feature])
    objective = SimCLR(projector=[8, 6], norm="none")
    return SSLModule(MLP((1, 4, 4), hidden=[12, 8], norm=norm), objective, regularizers, total_steps=10).train()


def observation(module, step):
    """What the controllers of a module ask for in a step, as the training loop does it."""
    points = asked(due(module.controllers, step))
    heads = {"projector": module.projector, "predictor": module.predictor}
    return Observation(points, module.layers, module.encoder, **heads)


def image_batch(samples, replicated=False):
    """Two views of these samples, each a function of its number."""
    images = torch.stack([torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(k)) for k in samples])
    return Batch(list(images.unbind(1)), torch.tensor(list(samples)), None, replicated)


def trained(shares, wrap=lambda module: module, replicated=False):
    """Coefficients and ranks after each of four steps of SGD on this rank's samples."""
    module = image_module(every=1, target=0.97, start=1e-2)
    wrapped, record = wrap(module), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for step in range(4):
        seen = observation(module, step)
        for samples in shares:
            with seen:
                loss = wrapped(image_batch(samples, replicated), step)["loss"]
            loss.backward()
        readings = seen.readings()
        optimizer.step()
        optimizer.zero_grad()
        controller = module.controllers["werank"]
        controller.update(step, readings)
        record.append(
            {"coefficients": controller(step + 1), "ranks": {p.name: r.effective_rank for p, r in readings.items()}}
        )
    return record


def floor_on_two(rank, world_size, store, results):
    """Half the samples each; of a replicated batch both have all."""
    start(rank, world_size, store)
    parallel = torch.nn.parallel.DistributedDataParallel
    records = {
        "shared": trained([range(4 * rank, 4 * rank + 4)], parallel),
        "replicated": trained([range(8)], parallel, True),
    }
    torch.save(records, f"{results}/{rank}.pt")
    dist.destroy_process_group()
