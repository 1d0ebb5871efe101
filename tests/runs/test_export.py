"""An exported encoder in plain modules of timm, torchvision and PyTorch Geometric."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from tiny import tiny_recipe
from torch import nn
from torch_geometric.nn import GAT, GCNConv, LayerNorm, SAGEConv

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.runs.export import check_exportable, load_encoder, plain_state_dict, save_encoder
from sslcollapse.runs.hub import HubEncoder
from sslcollapse.training.trainer import train

N, F = 12, 7
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1)


@pytest.fixture(scope="module", autouse=True)
def _registered(own_components):
    ENCODERS.register("one_slope")(OneSlope)
    ENCODERS.register("with_state")(WithState)


def exported(folder: Path, spec: dict, in_shape: tuple[int, ...]) -> nn.Module:
    """An encoder, its normalisations and slopes moved off their initial values; saved in the folder."""
    torch.manual_seed(0)
    encoder = ENCODERS.construct(spec, in_shape)
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


class OneSlope(nn.Module):
    """One PReLU after each of two layers, and a buffer that is a part of another."""

    def __init__(self, in_shape, *, out_dim: int = 5, tied: bool = True) -> None:
        super().__init__()
        self.out_dim = out_dim
        slope = nn.PReLU()
        self.layers = nn.Sequential(nn.Linear(F, 6), slope, nn.Linear(6, out_dim), slope if tied else nn.PReLU())
        table = torch.arange(12.0)
        self.register_buffer("table", table)
        self.register_buffer("tail", table[6:])

    def forward(self, view):
        return self.layers(view.x)


SHARED_GAT = dict(
    type="pyg",
    module="GAT",
    out_dim=5,
    kwargs=dict(hidden_channels=6, num_layers=2, v2=True, share_weights=True),
)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TIED = {
    "one PReLU used twice": (dict(type="one_slope"), (F,), lambda: graph()[1]),
    "GATv2 with shared weights": (SHARED_GAT, (F,), lambda: graph()[1]),
    "coat_lite_tiny": (dict(type="timm", model="coat_lite_tiny"), (3, 64, 64), lambda: IMAGES),
}


def names_by_tensor(encoder: nn.Module) -> set[frozenset[str]]:
    """Names of parameters, those of one tensor together."""
    names: dict[int, set[str]] = {}
    for name, parameter in encoder.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values()}


@torch.no_grad()
@pytest.mark.parametrize("case", TIED)
def test_a_tensor_under_several_names_is_exported_once_and_shared_again_after_loading(case, tmp_path):
    spec, in_shape, view = TIED[case]
    encoder = exported(tmp_path, spec, in_shape)
    shared = [group for group in names_by_tensor(encoder) if len(group) > 1]
    assert shared
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        stored = set(file.keys())
    assert all(len(group & stored) == 1 for group in shared)
    for loaded in (load_encoder(tmp_path)[0], HubEncoder.from_pretrained(tmp_path).encoder):
        assert names_by_tensor(loaded) == names_by_tensor(encoder)
        torch.testing.assert_close(loaded.state_dict(), encoder.state_dict())
        agree(loaded, view(), encoder(view()))
    HubEncoder.from_run(tmp_path).save_pretrained(tmp_path / "hub")
    assert names_by_tensor(load_encoder(tmp_path / "hub")[0]) == names_by_tensor(encoder)


@torch.no_grad()
def test_tensors_that_were_tied_after_the_encoder_was_built_are_tied_again(tmp_path):
    torch.manual_seed(0)
    encoder = ENCODERS.construct(dict(type="one_slope", tied=False), (F,))
    encoder.layers[3].weight = encoder.layers[1].weight
    recipe = tiny_recipe("export", optim=dict(type="adamw", lr=1e-3), train=dict(steps=1))
    save_encoder(tmp_path, encoder, recipe | dict(encoder=dict(type="one_slope", tied=False)), (F,), 1)
    loaded = load_encoder(tmp_path)[0]
    assert loaded.layers[3].weight is loaded.layers[1].weight


def test_an_encoder_with_shared_weights_is_trained_exported_and_evaluated(tmp_path):
    recipe = tiny_recipe("shared", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2), monitor=dict(every=0))
    recipe |= dict(
        objective=dict(type="simsiam", projector=[8, 8], predictor_hidden=4), evaluate={}, encoder=SHARED_GAT
    )
    encoder, _ = load_encoder(train(recipe, out=tmp_path))
    assert any(len(group) > 1 for group in names_by_tensor(encoder))


class WithState(OneSlope):
    """Ends in a layer whose state cannot be exported."""

    def __init__(self, in_shape, *, out_dim: int = 5) -> None:
        super().__init__(in_shape, out_dim=out_dim)
        self.layers.append(State(out_dim, out_dim))

    def reset_parameters(self):
        pass


class State(nn.Linear):
    """Keeps something in its state dict that is no tensor."""

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (State(3, 3), r"encoder: .*'1._extra_state' in its state dict is a dict and no tensor"),
        (nn.LazyLinear(3), r"encoder: .*'1.weight' in its state dict is sparse, or has no values yet"),
        (nn.Linear(3, 3, device="meta"), r"encoder: .*'1.weight' in its state dict is sparse, or has no values yet"),
    ],
)
def test_an_encoder_that_cannot_be_exported_is_refused_by_the_name_of_what_cannot(layer, message):
    with pytest.raises(RecipeError, match=message):
        check_exportable(nn.Sequential(nn.Linear(3, 3), layer), dict(type="mlp"), (3,))


def test_what_cannot_be_exported_is_refused_before_there_is_a_run(tmp_path):
    recipe = tiny_recipe("state", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2))
    with pytest.raises(RecipeError, match="it cannot be exported after training"):
        train(recipe | dict(encoder=dict(type="with_state")), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_argument_of_an_encoder_that_is_not_json_is_refused_before_there_is_a_run(tmp_path):
    recipe = tiny_recipe("json", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2))
    kwargs = dict(hidden_channels=4, num_layers=2, act=nn.ReLU())
    with pytest.raises(RecipeError, match=r"encoder.kwargs.act: ReLU\(\) cannot be written as JSON"):
        train(recipe | dict(encoder=dict(type="pyg", module="GAT", out_dim=5, kwargs=kwargs)), out=tmp_path)
    assert not list(tmp_path.iterdir())
