"""An exported encoder in plain modules of timm, torchvision and PyTorch Geometric."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from tiny import tiny_recipe
from torch import nn
from torch_geometric.nn import GAT, GCNConv, LayerNorm, SAGEConv

from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.errors import RunError
from sslcollapse.export import plain_state_dict, save_encoder
from sslcollapse.registry import ENCODERS

N, F = 12, 7
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1)


def exported(folder: Path, spec: dict, in_shape: tuple[int, ...]) -> nn.Module:
    """An encoder, its normalisations and slopes moved off their initial values; saved in the folder."""
    torch.manual_seed(0)
    encoder = ENCODERS.build(spec, in_shape)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand_like(tensor)).add_(0.01)
    recipe = tiny_recipe("export", optim=dict(type="adamw", lr=1e-3), train=dict(steps=1)) | dict(encoder=spec)
    save_encoder(folder, encoder, recipe, in_shape, 1)
    return encoder.eval()


def agree(encoder: nn.Module, view: object, plain: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(plain, encoder(view), rtol=1e-6, atol=1e-6)


def graph() -> tuple[torch.Tensor, GraphView]:
    x = torch.randn(N, F, generator=torch.Generator().manual_seed(1))
    return x, GraphView(GraphStructure(EDGES, N), Features(x))


@torch.no_grad()
def test_a_timm_encoder_loads_into_the_model_of_timm(tmp_path):
    kwargs = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8)
    encoder = exported(tmp_path, dict(type="timm", model="vit_tiny_patch16_224", kwargs=kwargs), (3, 16, 16))
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, **kwargs).eval()
    model.load_state_dict(plain_state_dict(tmp_path))
    images = torch.randn(2, 3, 16, 16)
    agree(encoder, images, model(images))


@torch.no_grad()
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_a_resnet_loads_into_torchvisions_without_classifier(stem, tmp_path):
    encoder = exported(tmp_path, dict(type="resnet18", stem=stem), (3, 32, 32))
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    if stem == "cifar":
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model.load_state_dict(plain_state_dict(tmp_path))
    images = torch.randn(2, 3, 32, 32)
    agree(encoder, images, model.eval()(images))


@torch.no_grad()
@pytest.mark.parametrize("options", [dict(norm="batch"), dict(norm="none", weight_standardization=True)])
def test_a_gcn_loads_into_convolutions_of_pytorch_geometric(options, tmp_path):
    encoder = exported(tmp_path, dict(type="gcn", hidden=[6, 5], **options), (F,))
    x, view = graph()
    plain = nn.ModuleDict(
        dict(
            convs=nn.ModuleList([GCNConv(F, 6, bias=options["norm"] == "none"), GCNConv(6, 5)]),
            norms=nn.ModuleList([nn.BatchNorm1d(6), nn.BatchNorm1d(5)]),
            activations=nn.ModuleList([nn.PReLU(), nn.PReLU()]),
        )
    )
    if options["norm"] == "batch":
        plain["convs"][1] = GCNConv(6, 5, bias=False)
    else:
        plain["norms"] = nn.ModuleList([nn.Identity(), nn.Identity()])
    plain.load_state_dict(plain_state_dict(tmp_path / "encoder.safetensors"))
    h = x
    for conv, norm, act in zip(*plain.eval().values(), strict=True):
        h = act(norm(conv(h, EDGES)))
    agree(encoder, view, h)


@torch.no_grad()
def test_a_sage_loads_into_convolutions_of_pytorch_geometric(tmp_path):
    encoder = exported(tmp_path, dict(type="sage", hidden=[6, 5]), (F,))
    x, view = graph()
    plain = nn.ModuleDict(
        dict(
            convs=nn.ModuleList([SAGEConv(F, 6), SAGEConv(6, 5)]),
            norms=nn.ModuleList([LayerNorm(6), LayerNorm(5)]),
            activations=nn.ModuleList([nn.PReLU(), nn.PReLU()]),
            skips=nn.ModuleList([nn.Linear(F, 6, bias=False)]),
        )
    )
    plain.load_state_dict(plain_state_dict(tmp_path))
    convs, norms, activations, skips = plain.values()
    first = activations[0](norms[0](convs[0](x, EDGES)))
    agree(encoder, view, activations[1](norms[1](convs[1](first + skips[0](x), EDGES))))


@torch.no_grad()
def test_an_adapted_module_loads_into_that_of_pytorch_geometric(tmp_path):
    kwargs = dict(hidden_channels=6, num_layers=2)
    encoder = exported(tmp_path, dict(type="pyg", module="GAT", out_dim=5, kwargs=kwargs), (F,))
    x, view = graph()
    model = GAT(F, out_channels=5, **kwargs).eval()
    model.load_state_dict(plain_state_dict(tmp_path))
    agree(encoder, view, model(x, EDGES))


def test_an_architecture_that_is_no_other_librarys_is_refused_with_the_known_ones(tmp_path):
    exported(tmp_path, dict(type="resnet_narrow", width=2), (1, 8, 8))
    message = f"{re.escape(str(tmp_path))}: encoder 'resnet_narrow' is an architecture of this package.*timm, pyg"
    with pytest.raises(RunError, match=message):
        plain_state_dict(tmp_path)
