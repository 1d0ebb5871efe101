"""Every encoder and every objective in every domain, and every regularizer, through one SSLModule."""

import functools

import pytest
import torch
from test_registered_components import SHAPES, build
from tiny import random_graph

from sslcollapse.core.registry import ENCODERS, OBJECTIVES, REGULARIZERS, RegistryError
from sslcollapse.core.types import Batch
from sslcollapse.domains.graph.node_views import NodeMask
from sslcollapse.regularizers.base import FeaturePenalty
from sslcollapse.training.module import SSLModule

PLAIN_ENCODER = {"graph": "gcn", "image": "resnet_narrow", "vector": "linear"}


@functools.cache
def batch(domain: str) -> Batch:
    if domain == "graph":
        views = [random_graph(seed=seed) for seed in range(2)]
        return Batch(views, torch.tensor([0]), None, True)
    rng = torch.Generator().manual_seed(0)
    samples = torch.randn(2, *SHAPES[domain], 12, generator=rng) * torch.linspace(0.5, 2, 12)
    return Batch(list(samples.movedim(-1, 1).contiguous()), torch.arange(12), torch.arange(12) % 3, False)


def accepted_by(name: str) -> tuple[str, ...]:
    return ENCODERS.get(name).reads


@functools.cache
def hiding() -> Batch:
    views = [NodeMask(p=0.4, replace=0.2)(view, torch.Generator().manual_seed(0)) for view in batch("graph").views]
    return batch("graph")._replace(views=views)


def batch_for(module: SSLModule, domain: str) -> Batch:
    return hiding() if module.objective.needs_hidden else batch(domain)


FOR_KIND = [
    (name, kind) for name in OBJECTIVES.names() for kind in SHAPES if kind in (OBJECTIVES.get(name).reads or SHAPES)
]
READS = [(name, domain) for name in ENCODERS.names() for domain in accepted_by(name)]


def module_of(encoder="gcn", objective="bgrl", domain="graph", regularizers=(), seed=0) -> SSLModule:
    penalties = {name: build(REGULARIZERS, name) for name in regularizers}
    loss = build(OBJECTIVES, objective)
    network = build(ENCODERS, encoder, SHAPES[domain])
    torch.manual_seed(seed)
    network.reset_parameters()
    return SSLModule(network, loss, penalties, total_steps=10, in_shape=SHAPES[domain]).train()


def check_a_step(module: SSLModule, domain: str) -> None:
    parts = module(batch_for(module, domain), 0)
    assert all(value.dim() == 0 and torch.isfinite(value) for value in parts.values())
    parts["loss"].backward()
    for name, p in module.named_parameters():
        if name.startswith("target."):
            assert p.grad is None, name
        else:
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name


@pytest.mark.parametrize("name", ENCODERS.names())
def test_an_encoder_of_one_kind_of_input_says_what_shape_it_reads(name):
    if len(accepted_by(name)) == 1:
        for kind in set(SHAPES) - set(accepted_by(name)):
            with pytest.raises(RegistryError, match="reads"):
                build(ENCODERS, name, SHAPES[kind])


@pytest.mark.parametrize(("name", "domain"), READS)
def test_a_step_with_an_encoder_is_finite_and_its_gradient_reaches_all_but_the_target(name, domain):
    check_a_step(module_of(encoder=name, domain=domain), domain)


@pytest.mark.parametrize(("name", "domain"), FOR_KIND)
def test_a_step_with_an_objective_is_finite_and_its_gradient_reaches_all_but_the_target(name, domain):
    check_a_step(module_of(PLAIN_ENCODER[domain], name, domain), domain)


@pytest.mark.parametrize(("name", "domain"), FOR_KIND)
def test_a_module_continues_from_its_saved_state(name, domain):
    saved = module_of(PLAIN_ENCODER[domain], name, domain)
    fresh = module_of(PLAIN_ENCODER[domain], name, domain, seed=1)

    def loss(module):
        torch.manual_seed(0)  # of dropout
        return module(batch_for(module, domain), 0)["loss"]

    with torch.no_grad():
        assert not torch.equal(loss(saved), loss(fresh))
        fresh.load_state_dict(saved.state_dict())
        assert torch.equal(loss(saved), loss(fresh))


@pytest.mark.parametrize("domain", SHAPES)
@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_a_regularizer_adds_its_weighted_parts_to_the_loss_of_any_domain(name, domain):
    module = module_of(PLAIN_ENCODER[domain], regularizers=[name], domain=domain)
    parts = module(batch(domain), 0)
    weighted = [value for key, value in parts.items() if key.startswith(f"regularizer/{name}/") and "weighted" in key]
    expected = len(build(REGULARIZERS, name).on) if name in _FEATURES else len(module.regularized_layers())
    assert len(weighted) == expected > 0
    torch.testing.assert_close(parts["loss"].detach(), (parts["objective/bgrl"] + sum(weighted)).detach())
    check_a_step(module, domain)


_FEATURES = [name for name in REGULARIZERS.names() if isinstance(build(REGULARIZERS, name), FeaturePenalty)]


def test_all_regularizers_at_once_are_each_named_in_the_parts():
    module = module_of("resnet_narrow", "simclr", "image", REGULARIZERS.names())
    parts = module(batch("image"), 0)
    assert {key.split("/")[1] for key in parts if key.startswith("regularizer/")} == set(REGULARIZERS.names())
    check_a_step(module, "image")
