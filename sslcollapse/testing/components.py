"""What encoders, objectives, regularizers, coefficients, optimizers and probes have to keep."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.registry import COEFFICIENTS, ENCODERS, OBJECTIVES, OPTIMIZERS, PROBES, REGULARIZERS
from sslcollapse.core.types import Batch, Branch, Hidden, ProbeSet, Split
from sslcollapse.layers.map import layer_map
from sslcollapse.objectives.base import Objective
from sslcollapse.probes.base import ProbeResult
from sslcollapse.regularizers.base import FeaturePenalty, WeightPenalty
from sslcollapse.testing.contract import ContractError, described, ensure, same
from sslcollapse.training.module import SSLModule


def check_encoder(encoder: Any, view: Any, samples: int | None = None) -> None:
    """An encoder on a view: its output, its gradients, and that it starts again.

    Args:
        encoder: which is left with other parameters.
        view: of two samples or more.
        samples: how many.

    Raises:
        ContractError: what is wrong.
    """
    name = type(encoder).__name__
    ENCODERS.check(encoder, name)
    ensure(isinstance(encoder, nn.Module), f"{name} is no torch.nn.Module")
    reads = getattr(encoder, "reads", None)
    ensure(
        isinstance(reads, tuple) and bool(reads) and all(isinstance(kind, str) for kind in reads),
        f'{name}.reads must name the kinds of views that it reads, such as ("image",), got {reads!r}',
    )
    out = encoder.train()(view)
    ensure(
        isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == encoder.out_dim,
        f"{name} must give [N, {encoder.out_dim}] (out_dim), got {described(out)}",
    )
    ensure(samples is None or len(out) == samples, f"{name} must give {samples} rows, one a sample, got {len(out)}")
    (out * torch.randn_like(out)).sum().backward()
    unreached = [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    ensure(not unreached, f"no gradient reaches {', '.join(unreached)} of {name}")
    with torch.no_grad():
        equal = torch.equal(encoder.eval()(view), encoder(view))
    ensure(equal, f"{name} gives two outputs for one view in eval mode")
    layers = layer_map(encoder)
    ensure(bool(layers), f"{name} has no layer: no weight matrix that the layer map knows")
    before = {key: layer.weight().detach().clone() for key, layer in layers.items()}
    encoder.reset_parameters()
    for key, layer in layer_map(encoder).items():
        ensure(
            layer.weight().shape == before[key].shape and not torch.equal(layer.weight(), before[key]),
            f"{name}.reset_parameters() leaves {key} as it was; it has to draw every weight again",
        )


def check_objective(objective: Any, width: int = 6, rows: int = 12) -> None:
    """An objective: its losses, gradients, heads, and whether it couples the samples of a batch as it says.

    Raises:
        ContractError: what is wrong.
    """
    name = type(objective).__name__
    OBJECTIVES.check(objective, name)
    ensure(isinstance(objective, Objective), f"{name} does not derive from sslcollapse.Objective")
    ensure(not list(objective.parameters()), f"{name} owns parameters; heads are made by projector() and predictor()")
    for which in ("projector", "predictor"):
        head = getattr(objective, which)(width)
        ensure(head is None or hasattr(head, "reset_parameters"), f"{name}.{which}() has no reset_parameters()")
        ensure(head is None or which == "predictor" or hasattr(head, "out_dim"), f"{name}.projector() has no out_dim")
    if objective.needs_target:
        momenta = [objective.momentum_at(step, 10) for step in (0, 9)]
        ensure(0 <= momenta[0] <= momenta[1] <= 1, f"{name}.momentum_at() must rise within [0, 1], got {momenta}")
        ensure(
            objective.target_initialization in ("own", "copy"),
            f"{name}.target_initialization must be 'own' or 'copy', got {objective.target_initialization!r}",
        )
    online, target = _branches(objective, width, rows)
    losses = objective(online, target, Gather())
    ensure(isinstance(losses, Mapping) and bool(losses), f"{name} must give name → loss, got {described(losses)}")
    for key, value in losses.items():
        good = isinstance(value, Tensor) and value.dim() == 0 and bool(torch.isfinite(value))
        ensure(good, f"{name}: the loss {key!r} must be a finite scalar tensor, got {described(value)}")
    sum(losses.values()).backward()
    for k, branch in enumerate(online):
        reached = branch.h.grad is not None and bool(branch.h.grad.abs().sum() > 0)
        ensure(reached, f"no gradient of {name} reaches view {k}")
    couples = couples_batch(objective, width)
    ensure(
        objective.couples_batch is couples,
        f"{name}.couples_batch is {objective.couples_batch}, and the loss of a batch "
        f"{'is not' if couples else 'is'} the mean of the losses of its halves; write couples_batch = {couples}",
    )


def couples_batch(objective: Objective, width: int = 6, rows: int = 16) -> bool:
    """Whether a sample's loss depends on the other samples: the loss of a batch against the mean of its halves'."""
    online, target = _branches(objective, width, rows, through_heads=False)

    def loss(part: slice) -> float:
        torch.manual_seed(0)
        cut = [_cut(branch, part) for branch in online]
        losses = objective(cut, None if target is None else [_cut(branch, part) for branch in target], Gather())
        return float(sum(losses.values()))

    with torch.no_grad():
        whole, first, second = (loss(part) for part in (slice(0, rows), slice(0, rows // 2), slice(rows // 2, rows)))
    return not math.isclose(whole, (first + second) / 2, rel_tol=1e-4, abs_tol=1e-6)


def check_regularizer(penalty: Any) -> None:
    """A penalty on weights or on features: scalars with finite gradients, also for zero, equal and orthogonal ones.

    Raises:
        ContractError: what is wrong.
    """
    name = type(penalty).__name__
    REGULARIZERS.check(penalty, name)
    if isinstance(penalty, WeightPenalty):
        return _check_on_weights(penalty, name)
    ensure(
        isinstance(penalty, FeaturePenalty),
        f"{name} derives neither from sslcollapse.WeightPenalty nor from sslcollapse.FeaturePenalty",
    )
    for special in (torch.zeros(5, 4), torch.ones(5, 4), torch.eye(5, 4)):
        views = [special.clone().requires_grad_() for _ in range(2)]
        value = penalty(views, Gather(), 0)
        good = isinstance(value, Tensor) and value.dim() == 0 and bool(torch.isfinite(value))
        ensure(good, f"{name} must give a finite scalar, got {described(value)} for {special.tolist()}")
        value.backward()
        finite = all(view.grad is not None and bool(torch.isfinite(view.grad).all()) for view in views)
        ensure(finite, f"{name} has no finite gradient for features {special.tolist()}")
    return None


def check_coefficient(coefficient: Any) -> None:
    """A coefficient: every layer has a number >= 0 at every step, always the same.

    Raises:
        ContractError: what is wrong.
    """
    name = type(coefficient).__name__
    COEFFICIENTS.check(coefficient, name)
    layers = layer_map(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    at = coefficient.resolve(layers, 10)
    for step in range(10):
        values = at(step)
        good = list(values) == list(layers) and all(isinstance(v, float) and v >= 0 for v in values.values())
        ensure(good, f"{name}: a number >= 0 for each of {list(layers)} is needed at step {step}, got {values!r}")
        ensure(at(step) == values, f"{name}: step {step} has two values")


def check_optimizer(spec: Any) -> None:
    """An optimizer's settings: a learning rate at every step, all parameters once, and a state that goes on.

    Raises:
        ContractError: what is wrong.
    """

    class Pull(Objective):
        couples_batch = False

        def forward(self, online: Any, target: Any, gather: Any) -> dict[str, Tensor]:
            return {"pull": (online[0].h - online[1].h).square().mean()}

    class Encoder(nn.Sequential):
        out_dim = 3

    name = type(spec).__name__
    OPTIMIZERS.check(spec, name)
    rates = [spec.lr_at(step, 10) for step in range(11)]
    ensure(all(math.isfinite(rate) and rate >= 0 for rate in rates), f"{name}.lr_at() must be >= 0, got {rates}")

    def trained(steps: int, state: Any = None) -> tuple[Any, Any]:
        torch.manual_seed(0)
        module = SSLModule(Encoder(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), Pull(), total_steps=10)
        optimizer = spec.build(module)
        groups = [p for group in optimizer.param_groups for p in group["params"]]
        once = len(groups) == len(set(groups)) and set(groups) == {p for p in module.parameters() if p.requires_grad}
        ensure(once, f"{name}.build() must give every parameter that is trained to the optimizer, once")
        views = torch.randn(2, 6, 4)
        start = 0
        if state is not None:
            start = 2
            module.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        for step in range(start, start + steps):
            for group in optimizer.param_groups:
                group["lr"] = max(spec.lr_at(step, 10), 1e-3)
            module(Batch(list(views), torch.arange(6), None, False), step)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        copied = {key: value.clone() for key, value in module.state_dict().items()}
        return copied, optimizer.state_dict()

    at_first, after_two, after_three = trained(0), trained(2), trained(3)
    moved = any(not torch.equal(value, after_two[0][key]) for key, value in at_first[0].items())
    ensure(moved, f"two steps of {name} change no parameter")
    resumed = trained(1, after_two)[0]
    ensure(same(resumed, after_three[0]), f"{name} does not go on from its state_dict as if it had not stopped")


def check_probe(probe: Any, probe_set: ProbeSet | None = None) -> None:
    """A probe on well separated features: a result that could be JSON, with finite metrics, one a split.

    Args:
        probe: to be called.
        probe_set: with labels and splits; by default 90 samples of 3 classes, with one split, ``"public"``.

    Raises:
        ContractError: what is wrong.
    """
    name = type(probe).__name__
    PROBES.check(probe, name)
    taken = list(inspect.signature(probe).parameters)[:2]
    ensure(taken == ["features", "probe_set"], f"{name} must be called with (features, probe_set), not {taken}")
    rng = torch.Generator().manual_seed(0)
    if probe_set is None:
        rows = np.arange(90)
        probe_set = ProbeSet((), torch.arange(90) % 3, 3, {"public": [Split(*np.array_split(rows, 3))]})
    labels = probe_set.labels
    columns = nn.functional.one_hot(labels, probe_set.num_classes) if labels.dim() == 1 else labels
    features = 3.0 * columns.float() + 0.1 * torch.randn(columns.shape, generator=rng)
    given = features.clone()
    if hasattr(probe, "check"):
        probe.check(probe_set)
    result = probe(features, probe_set)
    ensure(isinstance(result, ProbeResult), f"{name} must return a sslcollapse.ProbeResult, got {described(result)}")
    values = [*result.test, *result.validation]
    ensure(
        len(result.test) == len(result.validation) == len(result.splits) > 0 and all(map(math.isfinite, values)),
        f"{name}: test and validation must be finite numbers, one for each of its {len(result.splits)} splits",
    )
    ensure(torch.equal(features, given), f"{name} changes the features that it is given")
    try:
        json.dumps(result.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{name}: its result cannot be JSON: {error}") from error


def _check_on_weights(penalty: WeightPenalty, name: str) -> None:
    for special in (torch.zeros(4, 4), torch.eye(4), torch.ones(4, 4)):
        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        first: Any = network[0]
        with torch.no_grad():
            first.weight.copy_(special)
        layers = layer_map(network)
        values = penalty(layers)
        scalars = list(values) == list(layers) and all(v.dim() == 0 for v in values.values())
        ensure(scalars, f"{name} must give one scalar for each of {list(layers)}, got {described(values)}")
        sum(values.values()).backward()
        gradients = [p.grad for key, p in network.named_parameters() if key.endswith("weight")]
        finite = all(grad is not None and bool(torch.isfinite(grad).all()) for grad in gradients)
        ensure(finite, f"{name} has no finite gradient for the weight {special.tolist()}")
        for key, value in values.items():
            found, floor = float(value.detach()), penalty.floor(layers[key])
            ensure(found >= floor - 1e-5, f"{name} of {key} is {found}, below its floor {floor}")


def _branches(
    objective: Objective, width: int, rows: int, *, through_heads: bool = True
) -> tuple[list[Branch], list[Branch] | None]:
    """Two online branches and, where they are needed, target branches, of random representations."""
    torch.manual_seed(0)
    projector = objective.projector(width)
    embedding: int = width if projector is None else projector.out_dim  # type: ignore[assignment]
    predictor = objective.predictor(embedding)
    online = []
    for _ in range(2):
        h = torch.randn(rows, width, requires_grad=True)
        z = h if projector is None else projector(h)
        p = None if predictor is None else predictor(z)
        if not through_heads:  # whose normalisation may couple samples too
            z = torch.randn(rows, embedding)
            h = z if projector is None else h
            p = None if p is None else torch.randn(p.shape)
        online.append(Branch(h, z, p, *_decoded(h)))
    target = [Branch(torch.randn(rows, width), torch.randn(rows, embedding), None) for _ in range(2)]
    return online, target if objective.needs_target else None


def _decoded(h: Tensor) -> tuple[Tensor, Hidden]:
    """What a decoder might make of hidden samples, all of them, and what they have in truth."""
    return h.tanh(), Hidden(torch.arange(len(h)), torch.randn(h.shape))


def _cut(branch: Branch, part: slice) -> Branch:
    def of(rows: Tensor | None) -> Any:
        return None if rows is None else rows[part]

    hidden = None if branch.hidden is None else Hidden(*(rows[part] for rows in branch.hidden))
    return Branch(of(branch.h), of(branch.z), of(branch.p), of(branch.d), hidden)
