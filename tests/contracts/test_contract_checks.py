"""Each check of ``sslcollapse.testing`` fails on a component that breaks what it checks, and says how."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslcollapse import (
    Batch,
    FeaturePenalty,
    Neighbours,
    Objective,
    OptimizerSpec,
    ProbeResult,
    ProbeSet,
    RegistryError,
    SampleDomain,
    Samples,
    WeightPenalty,
    testing,
)
from sslcollapse.testing import ContractError


class Points(SampleDomain):
    """Points; a view moves them."""

    kind, in_shape = "vector", (2,)

    def read(self) -> Samples:
        return Samples(torch.arange(80.0).view(40, 2))

    def augment(self, batch: Tensor, rng: torch.Generator) -> Tensor:
        return batch + torch.randn(batch.shape, generator=rng)


class GlobalNoise(Points):
    """Draws from torch's global state."""

    def augment(self, batch, rng):
        return batch + torch.randn(batch.shape)


class Ends(Points):
    """One epoch."""

    def batches(self, start_step, context):
        return islice(super().batches(start_step, context), 4)


class Frozen(Points):
    """The same batch at every step."""

    def batches(self, start_step, context):
        while True:
            yield next(super().batches(0, context))


class OneSeed(Points):
    """Ignores the seed."""

    def batches(self, start_step, context):
        return super().batches(start_step, type(context)(0, context.rank, context.world_size, context.device))


class SameOnAllRanks(Points):
    """Does not share a batch."""

    def batches(self, start_step, context):
        return super().batches(start_step, type(context)(context.seed))


class HalfMeasured(Points):
    """Measures a part of the samples of some views."""

    def measurable(self, view):
        return view[: int(view.abs().sum()) % len(view) + 1]


class FarNeighbours(Points):
    """Has an edge to a sample that is not in the view."""

    def neighbours(self, view):
        return Neighbours(torch.tensor([[0], [len(view)]]), len(view))


class FewClasses(Points):
    """Says too few classes."""

    def probe_set(self):
        return ProbeSet([torch.zeros(40, 2)], torch.arange(40), 3, {})


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (GlobalNoise, r"batch k may depend on its number and on the context only"),
        (Frozen, r"does not begin with the third batch|are the same in batch 0 and in batch 2"),
        (OneSeed, r"the views of OneSeed are the same for two seeds"),
        (SameOnAllRanks, r"two ranks of SameOnAllRanks have the same samples; share a batch over ranks"),
        (HalfMeasured, r"measurable\(\) gives two views of the same samples another number of rows"),
        (FarNeighbours, r"neighbours\(view\) must be None or have edges \[2, E\] between rows 0 to nodes - 1"),
        (FewClasses, r"num_classes is 3, labels need 40"),
        (type("Wordless", (Points,), {"kind": ""}), r"Wordless.kind must be a word, got ''"),
        (
            type("Shapeless", (Points,), {"in_shape": (0,)}),
            r"in_shape must be a tuple of whole numbers >= 1, got",
        ),
        (type("Long", (Points,), {"describe": lambda self: "a\nb"}), r"Long.describe\(\) must be one line"),
    ],
)
def test_a_domain_that_breaks_the_protocol_is_told_how(domain, message):
    with pytest.raises(ContractError, match=message):
        testing.check_domain(domain(Path(), batch_size=8))


def test_a_domain_whose_batches_end_is_told_so():
    with pytest.raises(Exception, match=r"Ends.batches\(\) ended after 4 batches"):
        testing.check_domain(Ends(Path(), batch_size=8))


class Line(nn.Linear):
    reads = ("vector",)
    out_dim = 3

    def __init__(self) -> None:
        super().__init__(2, 3)
        nn.init.normal_(self.weight)


class Unreached(Line):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(1))


class Dropping(Line):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), training=True)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (type("Silent", (Line,), {"reads": None}), r"Silent.reads must name the kinds of views .* got None"),
        (type("Word", (Line,), {"reads": "vector"}), r'such as \("image",\), got \'vector\''),
        (type("Wide", (Line,), {"out_dim": 4}), r"Wide must give \[N, 4\] \(out_dim\), got a tensor \[5, 3\]"),
        (Unreached, r"no gradient reaches unused of Unreached"),
        (Dropping, r"Dropping gives two outputs for one view in eval mode"),
        (
            type("Kept", (Line,), {"reset_parameters": lambda self: None}),
            r"Kept.reset_parameters\(\) leaves weight as it was",
        ),
    ],
)
def test_an_encoder_that_breaks_its_contract_is_told_how(encoder, message):
    with pytest.raises(ContractError, match=message):
        testing.check_encoder(encoder(), torch.randn(5, 2), 5)


class Close(Objective):
    """Per sample."""

    couples_batch = False

    def forward(self, online, target, gather):
        return {"close": (online[0].h - online[1].h).square().mean()}


class Spread(Close):
    """Couples the samples of a batch."""

    def forward(self, online, target, gather):
        return {"spread": sum((branch.h.std(0) - 1).square().sum() for branch in online)}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Spread, r"couples_batch is False, and the loss of a batch is not the mean .* write couples_batch = True"),
        (
            type("Shy", (Close,), {"couples_batch": True}),
            r"couples_batch is True, .* is the mean .*batch = False",
        ),
        (type("Unsaid", (Close,), {"couples_batch": None}), r"couples_batch is None"),
        (
            type("OneView", (Close,), {"forward": lambda s, o, t, g: {"x": o[0].h.square().mean()}}),
            r"no gradient of OneView reaches view 1",
        ),
        (type("Bare", (Close,), {"forward": lambda s, o, t, g: o[0].h.mean()}), r"Bare must give name → loss, got"),
        (
            type("Rows", (Close,), {"forward": lambda s, o, t, g: {"rows": o[0].h}}),
            r"the loss 'rows' must be a finite scalar tensor, got a tensor \[12, 6\]",
        ),
    ],
)
def test_an_objective_that_breaks_its_contract_is_told_how(objective, message):
    with pytest.raises(ContractError, match=message):
        testing.check_objective(objective())


def test_whether_an_objective_couples_samples_is_found_from_a_batch_and_its_halves():
    assert testing.couples_batch(Spread())
    assert not testing.couples_batch(Close())


class Norms(WeightPenalty):
    """Not differentiable at zero."""

    def __init__(self) -> None:
        super().__init__(1.0, ("encoder",))

    def forward(self, layers):
        return {name: layer.weight().square().sum().sqrt() for name, layer in layers.items()}


class HighFloor(Norms):
    def forward(self, layers):
        return {name: layer.weight().square().sum() for name, layer in layers.items()}

    def floor(self, layer):
        return 1.0


class Rows(FeaturePenalty):
    def __init__(self) -> None:
        super().__init__(1.0, ("representation",))

    def forward(self, features, gather, step=0):
        return features[0].square().sum(1)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (Norms, r"Norms has no finite gradient for the weight \[\[0.0"),
        (HighFloor, r"HighFloor of 0 is 0.0, below its floor 1.0"),
        (Rows, r"Rows must give a finite scalar, got a tensor \[5\]"),
    ],
)
def test_a_penalty_that_breaks_its_contract_is_told_how(penalty, message):
    with pytest.raises(ContractError, match=message):
        testing.check_regularizer(penalty())


class Settings(OptimizerSpec):
    def __init__(self) -> None:
        settings = dict(weight_decay=0.0, warmup_steps=0, schedule="constant")
        super().__init__(lr=0.1, exclude_norm_and_bias=False, decay_regularized=True, **settings)

    def build(self, module):
        return torch.optim.SGD(module.parameters(), lr=self.lr, momentum=0.9)


class Forgetful(Settings):
    def build(self, module):
        optimizer = super().build(module)
        optimizer.load_state_dict = lambda state: None
        return optimizer


class Half(Settings):
    def build(self, module):
        return torch.optim.SGD(list(module.parameters())[:1], lr=self.lr)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Forgetful, r"Forgetful does not go on from its state_dict as if it had not stopped"),
        (Half, r"Half.build\(\) must give every parameter that is trained to the optimizer, once"),
        (type("Below", (Settings,), {"lr_at": lambda self, step, total: -1.0}), r"Below.lr_at\(\) must be >= 0, got"),
    ],
)
def test_an_optimizer_that_breaks_its_contract_is_told_how(spec, message):
    testing.check_optimizer(Settings())
    with pytest.raises(ContractError, match=message):
        testing.check_optimizer(spec())


class Mean:
    """Always right."""

    value, details = 1.0, {}

    def __call__(self, features, probe_set):
        splits = tuple(probe_set.splits["public"])
        return ProbeResult("accuracy", [self.value], [1.0], "mean", splits, self.details)


class Scaling(Mean):
    def __call__(self, features, probe_set):
        features *= 2
        return super().__call__(features, probe_set)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Scaling, r"Scaling changes the features that it is given"),
        (type("NoNumber", (Mean,), {"value": float("nan")}), r"must be finite numbers, one for each of its 1 splits"),
        (type("Tensors", (Mean,), {"details": {"w": torch.ones(1)}}), r"its result cannot be JSON"),
        (type("Bare", (Mean,), {"__call__": lambda self, features, probe_set: 1.0}), r"must return a sslcollapse.Prob"),
    ],
)
def test_a_probe_that_breaks_its_contract_is_told_how(probe, message):
    testing.check_probe(Mean())
    with pytest.raises(ContractError, match=message):
        testing.check_probe(probe())


def test_a_method_that_is_missing_is_named_by_every_check():
    for check in (testing.check_domain, testing.check_objective, testing.check_regularizer, testing.check_optimizer):
        with pytest.raises(RegistryError, match="object has no "):
            check(object())


def test_batches_compare_equal_in_all_that_a_view_is_made_of():
    from sslcollapse.testing.contract import same

    def batch(word, number=1.0):
        return Batch([{"words": [word], "x": torch.tensor([number])}], torch.arange(1), None, False)

    assert same(batch("a"), batch("a"))
    assert not same(batch("a"), batch("b"))
    assert not same(batch("a"), batch("a", 2.0))
