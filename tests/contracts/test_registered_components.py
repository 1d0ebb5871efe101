"""What every registered component keeps; a new one is tested by being registered."""

import dataclasses
import inspect
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import torch
from tiny import random_graph
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.registry import (
    COEFFICIENTS,
    CONSTRAINTS,
    DOMAINS,
    ENCODERS,
    OBJECTIVES,
    OPTIMIZERS,
    PROBES,
    REGISTRIES,
    REGULARIZERS,
    RegistryError,
)
from sslcollapse.core.types import Batch, Branch, Context, Domain
from sslcollapse.layers.map import layer_map
from sslcollapse.objectives.base import Objective
from sslcollapse.recipe.schema import MonitorSpec, RecipeSpec, TrainSpec
from sslcollapse.regularizers.base import FeaturePenalty, WeightPenalty
from sslcollapse.regularizers.constraints import Constraint
from sslcollapse.training.module import SSLModule

# The least arguments of components that have required ones, and small widths for encoders.
SPECS = {
    ("encoder", "gcn"): {"hidden": [8, 6]},
    ("encoder", "sage"): {"hidden": [8, 8]},
    ("encoder", "mlp"): {"hidden": [8, 6]},
    ("encoder", "linear"): {"hidden": [8, 6]},
    ("encoder", "pyg"): {"module": "GraphSAGE", "out_dim": 6, "kwargs": {"hidden_channels": 8, "num_layers": 2}},
    ("encoder", "resnet_narrow"): {"width": 4},
    ("encoder", "timm"): {"model": "test_vit"},
    ("domain", "graph"): {"dataset": {"type": "csbm", "features": 12}},
    ("domain", "vision"): {"dataset": {"type": "digits"}, "batch_size": 8},
    ("domain", "toy"): {"batch_size": 8},
    ("objective", "byol"): {"projector": [9, 6], "predictor_hidden": 7},
    ("objective", "simsiam"): {"projector": [9, 6], "predictor_hidden": 7},
    ("objective", "simclr"): {"projector": [9, 6]},
    ("objective", "vicreg"): {"projector": [9, 6]},
    ("objective", "barlow_twins"): {"projector": [9, 6]},
    ("objective", "lightly"): {"loss": "VICRegLoss", "projector": [9, 6]},
    ("coefficient", "depth"): {"first": 1.0, "last": 0.5},
    ("coefficient", "band"): {"value": 1.0},
    ("coefficient", "schedule"): {"base": 1.0},
    ("optimizer", "adamw"): {"lr": 1e-3},
    ("optimizer", "sgd"): {"lr": 1e-3},
    ("optimizer", "lars"): {"lr": 1e-3},
    ("optimizer", "timm"): {"lr": 1e-3, "name": "muon"},
}
ALL = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]


def build(registry, name, *supplied):
    arguments = SPECS.get((registry.kind, name), {})
    required = [p.name for p in registry.parameters(name).values() if p.default is p.empty and p.name not in arguments]
    assert not required, f"add the least arguments of {registry.kind} {name!r} ({', '.join(required)}) to SPECS"
    torch.manual_seed(0)
    return registry.build({"type": name, **arguments}, *supplied)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_component_describes_itself_in_one_line(kind, name):
    line = REGISTRIES[kind].describe(name)
    assert line.endswith(".")
    assert len(line) < 120


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_recipe_arguments_are_typed_and_documented(kind, name):
    registry = REGISTRIES[kind]
    text = f"{inspect.getdoc(registry.get(name))}\n{inspect.getdoc(registry.get(name).__init__)}"
    for parameter in registry.parameters(name).values():
        assert parameter.annotation is not parameter.empty, parameter.name
        assert f"{parameter.name}:" in text, parameter.name


UNBOUNDED = {("vision_dataset", "image_folder", "mean"), ("vision_dataset", "image_table", "mean")}
"""Numbers that may be anything."""


def numbers_without_range(annotation, path):
    """Places of an annotation where any int or float is allowed."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        hints = get_type_hints(annotation, include_extras=True)
        return [place for name, hint in hints.items() for place in numbers_without_range(hint, f"{path}.{name}")]
    if get_origin(annotation) is Annotated and any(getattr(marker, "range", "") for marker in get_args(annotation)[1:]):
        return []
    if annotation in (int, float):
        return [path]
    return [place for part in get_args(annotation) for place in numbers_without_range(part, path)]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_number_of_a_component_has_a_range(kind, name):
    for parameter in REGISTRIES[kind].parameters(name).values():
        if (kind, name, parameter.name) not in UNBOUNDED:
            assert numbers_without_range(parameter.annotation, parameter.name) == []


@pytest.mark.parametrize("spec", [TrainSpec, MonitorSpec, RecipeSpec])
def test_every_number_of_a_fixed_field_has_a_range(spec):
    assert numbers_without_range(spec, "") == []


SHAPES = {"graph": (12,), "vision": (3, 32, 32), "toy": (1, 12)}


def encoder_and_view(name):
    """A small encoder of that name, and a view of the first domain that it reads."""
    for domain, shape in SHAPES.items():
        try:
            encoder = build(ENCODERS, name, shape)
        except RegistryError:
            continue
        return encoder, random_graph() if domain == "graph" else torch.randn(4, *shape)
    raise AssertionError(f"{name} reads no domain")


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_gives_rows_of_its_declared_width(name):
    encoder, view = encoder_and_view(name)
    rows = 60 if not isinstance(view, torch.Tensor) else 4
    assert encoder(view).shape == (rows, encoder.out_dim)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_initialises_itself_again(name):
    encoder, _ = encoder_and_view(name)
    before = {key: layer.weight().detach().clone() for key, layer in layer_map(encoder).items()}
    encoder.reset_parameters()
    assert before
    for key, layer in layer_map(encoder).items():
        assert layer.weight().shape == layer.shape == before[key].shape
        assert not torch.equal(layer.weight(), before[key]), key


@pytest.mark.parametrize("name", ENCODERS.names())
def test_gradients_reach_every_parameter_of_an_encoder(name):
    encoder, view = encoder_and_view(name)
    out = encoder.train()(view)
    (out * torch.randn_like(out)).sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_is_deterministic_in_eval_mode(name):
    encoder, view = encoder_and_view(name)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(view), encoder(view))


def branches(objective, rows=10, width=6):
    projector, predictor = objective.projector(width), None
    embedding = width if projector is None else projector.out_dim
    predictor = objective.predictor(embedding)
    online = []
    for _ in range(2):
        h = torch.randn(rows, width, requires_grad=True)
        z = h if projector is None else projector(h)
        online.append(Branch(h, z, None if predictor is None else predictor(z)))
    target = [Branch(torch.randn(rows, width), torch.randn(rows, embedding), None) for _ in range(2)]
    return online, target if objective.needs_target else None


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_gives_finite_named_scalars_with_gradients_for_every_view(name):
    objective = build(OBJECTIVES, name)
    assert isinstance(objective, Objective)
    online, target = branches(objective)
    losses = objective(online, target, Gather())
    assert losses
    assert all(value.dim() == 0 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(branch.h.grad is not None and branch.h.grad.abs().sum() > 0 for branch in online)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_owns_no_network_and_builds_heads_that_start_again(name):
    objective = build(OBJECTIVES, name)
    assert list(objective.parameters()) == []
    for head in (objective.projector(6), objective.predictor(6)):
        assert head is None or hasattr(head, "reset_parameters")
    if objective.needs_target:
        assert 0.0 <= objective.momentum_at(0, 10) <= objective.momentum_at(9, 10) <= 1.0


ON_WEIGHTS = [name for name in REGULARIZERS.names() if isinstance(build(REGULARIZERS, name), WeightPenalty)]


@pytest.mark.parametrize("name", sorted(set(REGULARIZERS.names()) - set(ON_WEIGHTS)))
def test_a_penalty_on_features_is_a_scalar_with_finite_gradients_even_for_collapsed_features(name):
    penalty = build(REGULARIZERS, name)
    assert isinstance(penalty, FeaturePenalty)
    for special in (torch.zeros(5, 4), torch.ones(5, 4), torch.eye(5, 4)):
        views = [special.clone().requires_grad_() for _ in range(2)]
        value = penalty(views, Gather())
        assert value.dim() == 0
        assert torch.isfinite(value)
        value.backward()
        assert all(torch.isfinite(view.grad).all() for view in views)


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_a_penalty_is_one_scalar_a_layer_with_finite_gradients_even_for_special_weights(name):
    penalty = build(REGULARIZERS, name)
    for special in (torch.zeros(4, 4), torch.eye(4), torch.ones(4, 4)):
        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        with torch.no_grad():
            network[0].weight.copy_(special)
        layers = layer_map(network)
        values = penalty(layers)
        assert list(values) == list(layers)
        assert all(value.dim() == 0 for value in values.values())
        sum(values.values()).backward()
        assert all(torch.isfinite(layer.weight().grad).all() for layer in layers.values())


@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_no_weight_has_a_penalty_below_its_floor(name):
    penalty = build(REGULARIZERS, name)
    for shape in ((3, 7), (7, 3), (5, 5)):
        linear = nn.Linear(*shape)
        for scale in (0.0, 0.3, 1.0):
            with torch.no_grad():
                linear.weight.copy_(scale * nn.init.orthogonal_(torch.empty_like(linear.weight)))
            (layer,) = layer_map(linear).values()
            assert float(penalty({"weight": layer})["weight"].detach()) >= penalty.floor(layer) - 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize("name", CONSTRAINTS.names())
def test_a_constraint_holds_before_the_first_step_and_after_others_of_any_optimizer(name, optimizer):
    constraint = build(CONSTRAINTS, name)
    assert isinstance(constraint, Constraint)
    torch.manual_seed(0)
    encoder = build(ENCODERS, "mlp", (12,))
    module = SSLModule(encoder, build(OBJECTIVES, "bgrl"), total_steps=3, constraints={"set": constraint})
    spec, x = build(OPTIMIZERS, optimizer), torch.randn(20, 12)
    moved = spec.build(module)
    began = {layer: module.layers[layer].weight().detach().clone() for layer in layer_map(encoder)}
    for step in range(4):
        for layer in began:
            weight = module.layers[layer].weight().detach()
            torch.testing.assert_close(weight, constraint.nearest(weight), rtol=0, atol=1e-2 if step else 1e-5)
        module(Batch([x, x + 0.1], torch.arange(20), None, False), 0)["loss"].backward()
        moved.step()
        module.constrained.after_step()
    assert all(not torch.equal(module.layers[layer].weight(), began[layer]) for layer in began)


@pytest.mark.parametrize("name", COEFFICIENTS.names())
def test_a_coefficient_names_every_layer_with_a_number_at_every_step(name):
    layers = layer_map(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    at = build(COEFFICIENTS, name).resolve(layers, 10)
    for step in range(10):
        assert list(at(step)) == list(layers)
        assert all(isinstance(value, float) and value >= 0 for value in at(step).values())
        assert at(step) == at(step)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_an_optimizer_has_a_learning_rate_at_every_step(name):
    optimizer = build(OPTIMIZERS, name)
    assert all(optimizer.lr_at(step, 10) >= 0 for step in range(11))


@pytest.mark.parametrize("name", PROBES.names())
def test_a_probe_is_called_with_features_and_a_probe_set(name):
    assert list(inspect.signature(build(PROBES, name)).parameters)[:2] == ["features", "probe_set"]


def tensor_of(view):
    """What two equal views have the same of."""
    return view if isinstance(view, torch.Tensor) else torch.cat([view.x.flatten(), view.edge_index.flatten()])


@pytest.mark.parametrize("name", DOMAINS.names())
def test_a_domain_makes_the_batches_of_any_step_without_those_before(name):
    domain = build(DOMAINS, name, None)
    assert isinstance(domain, Domain)
    domain.check(1)
    domain.load()
    stream, later = (domain.batches(step, Context(seed=1)) for step in (0, 2))
    first, _, third = (next(stream) for _ in range(3))
    again = next(later)
    assert torch.equal(third.index, again.index)
    assert all(torch.equal(tensor_of(a), tensor_of(b)) for a, b in zip(third.views, again.views, strict=True))
    assert not torch.equal(tensor_of(first.views[0]), tensor_of(third.views[0]))


@pytest.mark.parametrize("name", DOMAINS.names())
def test_the_samples_of_a_domain_have_its_shape(name):
    domain = build(DOMAINS, name, None)
    domain.load()
    batch, probe_set = next(domain.batches(0, Context())), domain.probe_set()
    for view in (*batch.views, next(iter(probe_set.views))):
        rows = view if isinstance(view, torch.Tensor) else view.x
        assert rows.shape[1:] == domain.in_shape
    assert batch.replicated == domain.replicated
    assert (batch.labels is None) == (domain.num_classes is None)
