"""What every registered component keeps; a new one is tested by being registered."""

import dataclasses
import inspect
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import torch
from tiny import SHAPES, build, random_graph
from torch import nn

from sslcollapse import testing
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
)
from sslcollapse.core.types import Batch, Context
from sslcollapse.domains.base import Domain
from sslcollapse.layers.map import layer_map
from sslcollapse.recipe.spec import MonitorSpec, RecipeSpec, TrainSpec
from sslcollapse.regularizers.base import WeightPenalty
from sslcollapse.regularizers.constraints import Constraint
from sslcollapse.training.module import SSLModule

ALL = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]


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


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_keeps_its_contract_for_every_kind_that_it_reads(name):
    for kind in ENCODERS.get(name).reads:
        encoder = build(ENCODERS, name, SHAPES[kind])
        view = random_graph() if kind == "graph" else torch.randn(4, *SHAPES[kind])
        testing.check_encoder(encoder, view, 60 if kind == "graph" else 4)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_keeps_its_contract(name):
    testing.check_objective(build(OBJECTIVES, name))


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_regularizer_keeps_its_contract(name):
    testing.check_regularizer(build(REGULARIZERS, name))


ON_WEIGHTS = [name for name in REGULARIZERS.names() if isinstance(build(REGULARIZERS, name), WeightPenalty)]


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
def test_a_coefficient_keeps_its_contract(name):
    testing.check_coefficient(build(COEFFICIENTS, name))


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_an_optimizer_keeps_its_contract(name):
    testing.check_optimizer(build(OPTIMIZERS, name))


@pytest.mark.parametrize("name", PROBES.names())
def test_a_probe_keeps_its_contract(name):
    testing.check_probe(build(PROBES, name))


@pytest.mark.parametrize("name", DOMAINS.names())
def test_a_domain_keeps_its_contract(name):
    domain = build(DOMAINS, name, None)
    assert isinstance(domain, Domain)
    testing.check_domain(domain)


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
