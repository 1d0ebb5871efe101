"""Initial weights by the layer map, of encoders of this package and of others."""

import pytest
import torch
from tiny import tiny_recipe
from torch import nn
from torch.nn.utils import parametrizations

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.layers.map import LayerError, layer_map
from sslcollapse.nn.init import initialize
from sslcollapse.recipe import recipe_hash, resolve
from sslcollapse.training.module import SSLModule, encoder_from_recipe

SPECS = {
    "gcn": (dict(hidden=[8, 6]), (12,)),
    "sage": (dict(hidden=[8, 8]), (12,)),
    "mlp": (dict(hidden=[8, 6]), (12,)),
    "linear": (dict(hidden=[8, 6]), (12,)),
    "pyg": (dict(module="GraphSAGE", out_dim=6, kwargs=dict(hidden_channels=8, num_layers=2)), (12,)),
    "resnet_narrow": (dict(width=4), (3, 8, 8)),
    "timm": (dict(model="test_vit"), (3, 32, 32)),
}


def recipe(**parts):
    return tiny_recipe("start", optim=dict(type="adamw", lr=1e-3), train=dict(steps=1), evaluate={}, **parts)


def encoder(name, scheme, seed=0):
    arguments, shape = SPECS[name]
    torch.manual_seed(seed)
    return encoder_from_recipe({"encoder": dict(type=name, **arguments), "initialization": scheme}, shape)


def weights(network):
    return {name: layer.weight().detach() for name, layer in layer_map(network).items()}


@pytest.mark.parametrize("name", SPECS)
def test_orthogonal_gives_every_layer_of_an_encoder_singular_values_of_one(name):
    for weight in weights(encoder(name, "orthogonal")).values():
        torch.testing.assert_close(torch.linalg.svdvals(weight), torch.ones(min(weight.shape)))


@pytest.mark.parametrize("name", SPECS)
def test_glorot_gives_every_layer_of_an_encoder_the_range_of_its_matrix(name):
    for weight in weights(encoder(name, "glorot")).values():
        limit = (6 / sum(weight.shape)) ** 0.5
        assert 0.7 * limit < float(weight.abs().max()) <= limit


def test_identity_hands_on_the_first_inputs_and_of_a_convolution_the_taps_in_the_middle():
    linear, wide = nn.Linear(4, 3), nn.Linear(2, 5)
    initialize(layer_map(nn.Sequential(linear, wide)).values(), "identity")
    x = torch.randn(6, 4)
    torch.testing.assert_close(linear(x) - linear.bias, x[:, :3])
    torch.testing.assert_close((wide(x[:, :2]) - wide.bias)[:, :2], x[:, :2])
    for conv in (nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=2)):
        initialize(layer_map(conv).values(), "identity")
        images = torch.randn(2, conv.in_channels, 5, 5)
        torch.testing.assert_close(conv(images), images)


def test_memory_format_and_layout_of_the_weights_stay():
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    gcn = encoder("gcn", None)
    before = conv.weight.stride(), gcn.convs[0].weight.stride()
    for network in (conv, gcn):
        initialize(layer_map(network).values(), "orthogonal")
    assert (conv.weight.stride(), gcn.convs[0].weight.stride()) == before


def test_by_default_weights_and_the_hash_are_what_they_were():
    arguments, shape = SPECS["gcn"]
    torch.manual_seed(0)
    plain = ENCODERS.build(dict(type="gcn", **arguments), shape)
    ours = weights(encoder("gcn", None))
    assert all(torch.equal(weight, ours[name]) for name, weight in weights(plain).items())
    assert recipe_hash(resolve(recipe(initialization=None))) == recipe_hash(resolve(recipe()))
    assert recipe_hash(resolve(recipe(constraints={}))) == recipe_hash(resolve(recipe()))
    stated = {recipe_hash(resolve(recipe(initialization=scheme))) for scheme in ("orthogonal", "glorot", "identity")}
    assert len({recipe_hash(resolve(recipe())), *stated}) == 4
    constrained = resolve(recipe(constraints=dict(o=dict(type="orthogonal"))))
    assert recipe_hash(constrained) != recipe_hash(resolve(recipe()))


def test_a_target_of_its_own_is_drawn_by_the_same_scheme():
    torch.manual_seed(0)
    module = SSLModule.from_recipe(resolve(recipe(initialization="orthogonal")), (12,), None)
    ours, theirs = weights(module.encoder)["convs.0"], weights(module.target.encoder)["convs.0"]
    torch.testing.assert_close(torch.linalg.svdvals(theirs), torch.ones(12))
    assert not torch.allclose(ours, theirs, atol=0.1)


@pytest.mark.parametrize(
    ("name", "stated"), [("linear", {"decay": 0.0}), ("gcn", {"initial_rank": 2}), ("timm", {"pretrained": True})]
)
def test_weights_that_the_encoder_is_asked_to_begin_with_are_not_overwritten(name, stated):
    """Before it is built, which may fetch weights."""
    (field,) = stated
    arguments, shape = SPECS[name]
    with pytest.raises(RecipeError, match=f"initialization: 'glorot' would overwrite encoder.{field}; leave one out"):
        encoder_from_recipe({"encoder": {"type": name, **arguments, **stated}, "initialization": "glorot"}, shape)


def test_an_unknown_scheme_and_a_weight_that_is_computed_are_refused():
    with pytest.raises(ValueError, match="initialization must be one of orthogonal, glorot, identity, got 'zero'"):
        initialize([], "zero")
    computed = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(LayerError, match="layer '0': its weight is computed from other tensors"):
        initialize(layer_map(computed).values(), "glorot")
    with pytest.raises(RecipeError, match="initialization: expected one of 'orthogonal', 'glorot', 'identity'"):
        resolve(recipe(initialization="orthogonl"))
