"""Every objective and regularizer in two processes; imported by name in each spawned process."""

from dataclasses import replace

import lightly.utils.dist
import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import nn
from workers import start

from sslcollapse.core import distributed
from sslcollapse.core.registry import CONSTRAINTS, OBJECTIVES, REGULARIZERS
from sslcollapse.core.types import Batch
from sslcollapse.objectives.lightly import LOSSES
from sslcollapse.training import outputs
from sslcollapse.training.module import SSLModule

outputs.MAX_ROWS = 18  # three of the five positions of a convolution's output, of each of six samples
ROWS, WIDTH, REPRESENTATION = 6, 7, 5
SMALL = {"projector": [6, 8], "predictor_hidden": 9, "norm": "none"}
"""Argument → value for whichever objectives have it: heads without BatchNorm, whose statistics are each process's."""
VARIANTS = {
    "simclr/dot": {"type": "simclr", "similarity": "dot"},
    "simclr/squared_distance": {"type": "simclr", "similarity": "squared_distance"},
}
"""Objectives with arguments that change how samples are coupled, and every loss of lightly."""
LIGHTLY = {"WMSELoss": {"arguments": {"embedding_dim": 3, "w_size": 6}, "projector": [6, 3]}}
VARIANTS |= {f"lightly/{name}": {"type": "lightly", "loss": name, **LIGHTLY.get(name, {})} for name in LOSSES}
VARIANTS |= {
    f"lightly/{name}/momentum": {"type": "lightly", "loss": name, "momentum": 0.9}
    for name, known in LOSSES.items()
    if known.momentum
}
NAMES = [name for name in OBJECTIVES.names() if not OBJECTIVES.get(name).needs_hidden]
"""Objectives of samples; those of hidden nodes need the graph as a whole, which no two processes share."""
LEAST = {"lightly": {"type": "lightly", "loss": "NTXentLoss"}}
"""The least arguments of objectives that have required ones."""


class Encoder(nn.Module):
    """[N, 7] → [N, 5], a convolution and a Linear, without anything that couples samples."""

    out_dim = REPRESENTATION

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(15, REPRESENTATION))

    def reset_parameters(self) -> None:
        self.layers[0].reset_parameters()
        self.layers[3].reset_parameters()

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        return self.layers(view[:, None])


def cases() -> list[tuple[str, str | None]]:
    """(objective, regularizer or constraint); these two stand beside an objective that couples no samples."""
    return [(name, None) for name in [*NAMES, *VARIANTS]] + [
        ("bgrl", name) for name in [*REGULARIZERS.names(), *CONSTRAINTS.names()]
    ]


def module(objective: str, regularizer: str | None) -> SSLModule:
    """In float64, the same in every process."""
    torch.manual_seed(0)
    loss = VARIANTS.get(objective) or LEAST.get(objective, {"type": objective})
    small = {name: value for name, value in SMALL.items() if name in OBJECTIVES.parameters(loss["type"])}
    penalties, constraints = {}, {}
    if regularizer in CONSTRAINTS.names():
        constraints["constraint"] = CONSTRAINTS.build({"type": regularizer})
    elif regularizer is not None:
        spec = {"type": regularizer, "coefficient": 0.7}
        if "on" in REGULARIZERS.parameters(regularizer):
            spec["on"] = ["representation", "embedding", "prediction", "layers.*", "predictor.*"]
        else:
            spec["networks"] = ["encoder", "predictor"]
        penalties["penalty"] = REGULARIZERS.build(spec)
    built = SSLModule(
        Encoder(), OBJECTIVES.build({**small, **loss}), penalties, total_steps=10, constraints=constraints
    )
    if built.target is not None:  # as after some steps: of equal rows the singular values of MMCR have no gradient
        with torch.no_grad():
            for p in built.target.parameters():
                p.add_(0.1 * torch.randn(p.shape))
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in built.modules())
    return built.double()


def batch(rows: slice, replicated: bool = False, equal: bool = False) -> Batch:
    """Some rows of a batch whose every row is of another size, and whose rows differ between views."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, WIDTH, generator=rng, dtype=torch.float64) * torch.arange(1, ROWS + 1)[:, None] / 3
    views = [x + 0.3 * torch.randn(x.shape, generator=rng, dtype=torch.float64) for _ in range(2)]
    return Batch([view[rows] for view in views], torch.arange(ROWS)[rows], None, replicated, equal)


def gradients(built: SSLModule, forward: nn.Module, samples: Batch) -> dict[str, torch.Tensor]:
    """Parameter → gradient of the loss of a batch, with the loss itself under ``loss``."""
    torch.manual_seed(distributed.rank())  # draws of a process by itself differ from those of another
    loss = forward(samples, 0)["loss"]
    loss.backward()
    found = {name: p.grad for name, p in built.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), **found}


def wrapped_gradients(objective: str, regularizer: str | None, samples: Batch) -> dict[str, torch.Tensor]:
    built = module(objective, regularizer)
    return gradients(built, nn.parallel.DistributedDataParallel(built), samples)


def own_gathering(name: str, samples: Batch) -> dict[str, torch.Tensor] | None:
    """Gradients where a loss of lightly gathers by itself; None of one that cannot."""
    built = module(f"lightly/{name}", None)
    if not any(hasattr(part, "gather_distributed") for part in built.objective.modules()):
        return None
    built.objective.known = replace(built.objective.known, gathers=True)
    return gradients(built, nn.parallel.DistributedDataParallel(built), samples)


def gradients_of_a_sum(part: int | None = None) -> dict[str, torch.Tensor]:
    """Of a loss of the sum of two gathered tensors, whose gradients autograd holds in one tensor, for two leaves."""
    x = torch.arange(24, dtype=torch.float64).view(2, 4, 3)
    a, b = (view if part is None else view.chunk(2)[part] for view in x)
    leaves = {"a": a.clone().requires_grad_(), "b": b.clone().requires_grad_()}
    gather = distributed.Gather()
    (gather(leaves["a"]) + gather(leaves["b"])).square().sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def every_gradient(rank: int, world_size: int, store: str, results: str) -> None:
    """Save this rank's gradients of all cases: with its share of the rows, replicated, and with a broken gather."""
    start(rank, world_size, store)
    share = ROWS // world_size
    own = slice(rank * share, (rank + 1) * share)
    found = {
        f"{objective}/{penalty}": wrapped_gradients(objective, penalty, batch(own, equal="lightly" in objective))
        for objective, penalty in cases()
    }
    found |= {f"own/{name}": own_gathering(name, batch(own, equal=True)) for name in LOSSES}

    collective, dist.all_gather = dist.all_gather, _forbidden
    for objective, penalty in cases():
        whole = wrapped_gradients(objective, penalty, batch(slice(None), replicated=True))
        found[f"replicated/{objective}/{penalty}"] = whole
    dist.all_gather = collective

    found["sum"] = gradients_of_a_sum(rank)
    distributed._AllGather = _OwnSlicePutBack
    lightly.utils.dist.GatherLayer = _OwnSlicePutBackInParts
    torch.distributed.nn.all_reduce = _summed_in_place
    for objective, penalty in cases():
        samples = batch(own, equal="lightly" in objective)
        found[f"broken/{objective}/{penalty}"] = wrapped_gradients(objective, penalty, samples)
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def _forbidden(*arguments: object) -> None:
    raise AssertionError("a replicated batch was gathered")


class _OwnSlicePutBack:
    """The usual mistake: gathered rows are constants but for the own ones."""

    @staticmethod
    def apply(x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.detach().contiguous())
        parts[dist.get_rank()] = x
        return torch.cat(parts)


class _OwnSlicePutBackInParts:
    """The same of lightly's gathering."""

    @staticmethod
    def apply(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _OwnSlicePutBack.apply(x).chunk(dist.get_world_size())


def _summed_in_place(x: torch.Tensor) -> torch.Tensor:
    """A sum over ranks whose gradient is that of the own part."""
    total = x.detach().clone()
    dist.all_reduce(total)
    return x + (total - x.detach())
