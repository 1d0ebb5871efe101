"""Image encoders: widths, stems, initialisation, layer maps, measurement, and what they refuse."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from sslcollapse.core.errors import MissingDataError
from sslcollapse.core.registry import ENCODERS, RegistryError
from sslcollapse.encoders.gcn import GCN
from sslcollapse.encoders.mlp import MLP
from sslcollapse.encoders.resnet import NarrowResNet, ResNet18, ResNet34, ResNet50
from sslcollapse.encoders.sage import SAGE
from sslcollapse.encoders.timm import Timm
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.measure import measure

TINY_VIT = dict(embed_dim=12, depth=2, num_heads=3, patch_size=4)


def vit(size=16, **kwargs):
    return Timm((3, size, size), model="vit_tiny_patch16_224", kwargs={**TINY_VIT, **kwargs})


def test_resnet18_without_its_classifier_is_torchvisions():
    torch.manual_seed(0)
    ours = ResNet18((3, 32, 32), stem="imagenet").eval()
    theirs = torchvision.models.resnet18(weights=None).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


def test_the_cifar_stem_keeps_the_resolution_and_the_imagenet_stem_quarters_it():
    seen = []
    for stem in ("cifar", "imagenet"):
        encoder = ResNet18((1, 32, 32), stem=stem).eval()
        encoder.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        assert encoder(torch.randn(2, 1, 32, 32)).shape == (2, encoder.out_dim)
    assert seen == [(2, 64, 32, 32), (2, 64, 8, 8)]


@pytest.mark.parametrize(("make", "width", "layers"), [(ResNet18, 512, 20), (ResNet34, 512, 36), (ResNet50, 2048, 53)])
def test_residual_networks_declare_their_width_and_have_all_convolutions_as_layers(make, width, layers):
    with torch.device("meta"):
        encoder = make((3, 32, 32))
    assert encoder(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, encoder.out_dim) == (2, width)
    assert len(layer_map(encoder)) == layers == sum(isinstance(m, nn.Conv2d) for m in encoder.modules())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 9, 13)])
def test_the_narrow_network_reads_digits_and_cifar_images_in_any_memory_format(shape):
    torch.manual_seed(0)
    encoder = NarrowResNet(shape, width=4).eval()
    images = torch.randn(2, *shape)
    out = encoder(images)
    assert out.shape == (2, encoder.out_dim) == (2, 16)
    last = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images.to(memory_format=torch.channels_last)), out, rtol=1e-4, atol=1e-5)


def test_the_narrow_network_has_a_stage_for_each_number_of_blocks():
    encoder = NarrowResNet((1, 8, 8), width=4, blocks=[2, 1])
    assert encoder.out_dim == 8
    shapes = {name: layer.shape for name, layer in layer_map(encoder).items()}
    assert shapes == {
        "conv1": (4, 9),
        "stages.0.0.conv1": (4, 36),
        "stages.0.0.conv2": (4, 36),
        "stages.0.1.conv1": (4, 36),
        "stages.0.1.conv2": (4, 36),
        "stages.1.0.conv1": (8, 36),
        "stages.1.0.conv2": (8, 72),
        "stages.1.0.downsample.0": (8, 4),
    }


def test_without_skips_the_narrow_network_is_its_convolutions_one_after_the_other():
    torch.manual_seed(0)
    encoder = NarrowResNet((1, 8, 8), width=4, blocks=[2, 1], skips=False).eval()
    layers = layer_map(encoder)
    assert [layer.depth for layer in layers.values()] == list(range(7))
    images = torch.randn(3, 1, 8, 8)
    x = encoder.relu(encoder.bn1(encoder.conv1(images)))
    for block in (*encoder.stages[0], *encoder.stages[1]):
        x = block.bn1(block.conv1(x)).relu()
        x = block.bn2(block.conv2(x)).relu()
    assert torch.equal(encoder(images), x.mean((2, 3)))


def test_by_default_the_narrow_network_has_skips():
    torch.manual_seed(0)
    usual = NarrowResNet((1, 8, 8), width=4)
    torch.manual_seed(0)
    skipping = NarrowResNet((1, 8, 8), width=4, skips=True)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(usual.eval()(images), skipping.eval()(images))
    assert sum("downsample" in name for name in layer_map(usual)) == 2


def test_blocks_that_start_at_0_without_a_skip_are_refused():
    with pytest.raises(ValueError, match="zero_init_residual=True needs skips, got skips=False"):
        NarrowResNet((1, 8, 8), zero_init_residual=True, skips=False)


@pytest.mark.parametrize("make", [ResNet18, NarrowResNet])
def test_blocks_start_as_the_identity_on_request(make):
    encoder = make((3, 8, 8), zero_init_residual=True)
    encoder.reset_parameters()
    blocks = [m for m in encoder.modules() if isinstance(m, torchvision.models.resnet.BasicBlock)]
    assert all(not block.bn2.weight.any() for block in blocks)
    plain = make((3, 8, 8))
    assert all(bool(m.bn2.weight.all()) for m in plain.modules() if isinstance(m, type(blocks[0])))


@pytest.mark.parametrize("make", [lambda: ResNet18((3, 8, 8)), vit])
def test_starting_again_in_place_is_building_again_from_torchs_random_state(make):
    torch.manual_seed(1)
    fresh = make().state_dict()
    torch.manual_seed(0)
    encoder = make()
    parameters = list(encoder.parameters())
    encoder.train()(torch.randn(4, *encoder.in_shape))
    torch.manual_seed(1)
    encoder.reset_parameters()
    assert all(a is b for a, b in zip(encoder.parameters(), parameters, strict=True))
    assert all(torch.equal(value, fresh[name]) for name, value in encoder.state_dict().items())


def test_the_narrow_network_starts_again_with_new_weights_and_no_statistics():
    encoder = NarrowResNet((1, 8, 8)).train()
    before = {name: layer.weight().detach().clone() for name, layer in layer_map(encoder).items()}
    encoder(torch.randn(4, 1, 8, 8))
    encoder.reset_parameters()
    assert not any(torch.equal(layer.weight(), before[name]) for name, layer in layer_map(encoder).items())
    assert all(not m.num_batches_tracked for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_shortcuts_of_a_residual_network_have_the_depth_of_what_they_are_added_to():
    depth = {name: layer.depth for name, layer in layer_map(NarrowResNet((3, 8, 8))).items()}
    for stage in (1, 2):
        assert depth[f"stages.{stage}.0.downsample.0"] == depth[f"stages.{stage}.0.conv2"]
    assert sorted(set(depth.values())) == list(range(7))


def test_the_layers_of_a_vision_transformer_are_patches_then_attention_and_mlp_of_each_block():
    layers = layer_map(vit())
    block = [
        ("attn.qkv.q", (12, 12)),
        ("attn.qkv.k", (12, 12)),
        ("attn.qkv.v", (12, 12)),
        ("attn.proj", (12, 12)),
        ("mlp.fc1", (48, 12)),
        ("mlp.fc2", (12, 48)),
    ]
    expected = {"model.patch_embed.proj": (12, 48)}
    expected |= {f"model.blocks.{k}.{name}": shape for k in range(2) for name, shape in block}
    assert {name: layer.shape for name, layer in layers.items()} == expected
    assert [layer.depth for layer in layers.values()] == [0, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8]


def test_a_vision_transformer_is_measured_at_every_part_of_its_attention():
    encoder = Timm((3, 32, 32), model="vit_tiny_patch16_224", kwargs=dict(patch_size=4, depth=1))
    measured = measure(encoder, [torch.randn(4, 3, 32, 32)]).ranks["layers"]
    assert {name for name, parts in measured.items() if "output" not in parts} == set()
    for part in "qkv":
        output = measured[f"model.blocks.0.attn.qkv.{part}"]["output"]
        assert output["n"] == 4 * 65
        assert output["attainable"] == 192


def test_outputs_of_convolutions_grouped_or_not_are_measured():
    grouped = dict(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), cardinality=2, base_width=32)
    encoder = Timm((3, 16, 16), model="resnext50_32x4d", kwargs=grouped)
    measured = measure(encoder, [torch.randn(4, 3, 16, 16)]).ranks["layers"]
    assert measured["model.layer2.0.conv2.group1"]["output"]["n"] == 4 * 2 * 2
    assert {name for name, parts in measured.items() if "output" not in parts} == set()


def test_the_fused_attention_that_hooks_must_not_bypass_calls_its_query_key_value_map():
    encoder, seen = vit(), []
    encoder.model.blocks[0].attn.qkv.register_forward_hook(lambda *_: seen.append("qkv"))
    encoder.eval()(torch.randn(1, 3, 16, 16))
    assert seen == ["qkv"]


@pytest.mark.parametrize(
    ("model", "size"), [("convnext_atto", 32), ("mobilenetv3_small_050", 32), ("resnet10t", 32), ("levit_128s", 224)]
)
def test_a_timm_model_declares_the_width_it_returns_after_pooling(model, size):
    encoder = Timm((1, size, size), model=model).eval()
    with torch.no_grad():
        assert encoder(torch.randn(2, 1, size, size)).shape == (2, encoder.out_dim)


def test_a_model_of_one_size_is_built_for_the_size_of_the_images():
    assert vit(16).model.pos_embed.shape[1] == 1 + 16
    assert vit(8).model.pos_embed.shape[1] == 1 + 4
    assert Timm((3, 8, 16), model="vit_tiny_patch16_224", kwargs=TINY_VIT).model.pos_embed.shape[1] == 1 + 8


def test_building_a_timm_model_leaves_its_running_statistics_alone():
    encoder = Timm((3, 16, 16), model="resnet10t")
    assert encoder.training
    assert all(not m.num_batches_tracked for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_an_unknown_timm_model_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet_18'; did you mean .*'resnet18'"):
        Timm((3, 8, 8), model="resnet_18")
    with pytest.raises(ValueError, match=r"timm has no model 'vit_tiny'; did you mean 'vit_tiny_"):
        Timm((3, 8, 8), model="vit_tiny")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(model="resnet18", kwargs=dict(fooo=1)), r"refuses images \(3, 8, 8\) with kwargs \{'fooo': 1\}: .*fooo"),
        (dict(model="resnet18", kwargs=dict(in_chans=1)), r"kwargs.in_chans: is set from the data"),
        (dict(model="vit_tiny_patch16_224"), r"vit_tiny_patch16_224 cannot read images .*domain.size.*patch_size=4"),
        (dict(model="resnet10t", kwargs=dict(global_pool="")), r"returns shape \[1, 512, 1, 1\] .* global_pool='avg'"),
    ],
)
def test_what_a_timm_model_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        Timm((3, 8, 8), **settings)


def test_pretrained_weights_that_cannot_be_had_are_reported_with_a_way_out(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(MissingDataError, match=r"resnet10t cannot be loaded \(no route to host\).*pretrained=False"):
        Timm((3, 8, 8), model="resnet10t", pretrained=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet_narrow", "timm"])
@pytest.mark.parametrize("shape", [5, (5,)])
def test_an_image_encoder_refuses_the_features_of_a_graph(name, shape):
    arguments = {"model": "resnet10t"} if name == "timm" else {}
    with pytest.raises(RegistryError, match=rf"{name} reads samples of in_shape \(channels, .*, got \(5,\); mlp and"):
        ENCODERS.build({"type": name, **arguments}, shape)


@pytest.mark.parametrize("name", ["gcn", "sage", "pyg"])
def test_a_graph_encoder_refuses_images(name):
    arguments = {"module": "GCN", "out_dim": 4} if name == "pyg" else {}
    with pytest.raises(RegistryError, match=rf"{name} reads samples of in_shape \(features,\), .* got \(3, 8, 8\)"):
        ENCODERS.build({"type": name, **arguments}, (3, 8, 8))


@pytest.mark.parametrize("make", [GCN, SAGE, MLP])
def test_a_number_of_features_and_a_shape_of_one_entry_are_the_same(make):
    assert [p.shape for p in make(5).parameters()] == [p.shape for p in make((5,)).parameters()]


def test_an_mlp_reads_an_image_as_its_pixels():
    encoder = MLP((3, 4, 5), hidden=[6])
    assert layer_map(encoder)["layers.0"].shape == (6, 60)
    assert encoder(torch.randn(2, 3, 4, 5)).shape == (2, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(width=0), "width must be >= 1, got 0"),
        (dict(blocks=[1, 0]), r"blocks must be a non-empty list of positive widths, got \[1, 0\]"),
    ],
)
def test_impossible_narrow_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NarrowResNet((3, 8, 8), **settings)


def test_an_unknown_stem_and_an_empty_image_are_refused():
    with pytest.raises(ValueError, match="stem must be 'cifar' or 'imagenet', got 'mnist'"):
        ResNet18((3, 8, 8), stem="mnist")
    with pytest.raises(ValueError, match=r"in_shape must be positive numbers, got \(3, 0, 8\)"):
        ResNet18((3, 0, 8))
