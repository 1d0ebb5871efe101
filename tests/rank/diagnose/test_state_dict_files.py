import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import Attention
from torch import nn

from sslcollapse.layers.map import layer_coverage, layer_map
from sslcollapse.rank.diagnose.matrices import find_matrices
from sslcollapse.rank.diagnose.state_dict import TargetError, read_tensors
from sslcollapse.rank.diagnose.targets import load_target


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = OrderedDict(
        stem=nn.Conv2d(1, 6, 3),
        depthwise=nn.Conv2d(6, 6, 3, groups=6),
        norm=nn.BatchNorm2d(6),
        point=nn.Conv2d(6, 8, 1),
        attn=Attention(8, num_heads=2),
        mha=nn.MultiheadAttention(8, 2),
        cross=nn.MultiheadAttention(8, 2, kdim=5, vdim=7),
        words=nn.ModuleDict({"word_embeddings": nn.Embedding(11, 8)}),
        head=nn.Linear(8, 3),
    )
    return nn.Sequential(parts)


def names(path) -> list[str]:
    return [matrix.name for matrix in load_target(str(path)).matrices]


def test_a_state_dict_gives_the_layers_of_the_layer_map_in_their_order():
    model = network()
    found, coverage = find_matrices(model.state_dict())
    expected = layer_map(model)
    assert [matrix.name for matrix in found] == list(expected)
    for matrix in found:
        torch.testing.assert_close(matrix.weight, expected[matrix.name].weight().detach())
    assert [part.name for part in coverage.uncovered] == ["depthwise.weight", "words.word_embeddings.weight"]
    assert not coverage.unread
    assert coverage.covered == layer_coverage(model).covered


def test_parts_of_a_fused_weight_share_their_depth():
    attention = {"a.qkv.weight": torch.randn(6, 2), "a.proj.weight": torch.randn(2, 2)}
    found, _ = find_matrices(attention | {"b.weight": torch.randn(2, 2)})
    assert [(matrix.name, matrix.depth) for matrix in found] == [
        ("a.qkv.q", 0),
        ("a.qkv.k", 0),
        ("a.qkv.v", 0),
        ("a.proj", 1),
        ("b", 2),
    ]


def test_a_tied_weight_is_one_layer(tmp_path):
    tied = torch.randn(4, 4)
    torch.save({"a.weight": tied, "b.weight": tied, "c.weight": tied.clone()}, tmp_path / "tied.pt")
    assert names(tmp_path / "tied.pt") == ["a", "c"]


@pytest.mark.parametrize(
    ("wrap", "entry"),
    [
        (lambda state: state, ""),
        (
            lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2, 2)}}}},
            "state_dict",
        ),
        (lambda state: {"model": state, "loss": torch.tensor(0.1)}, "model"),
        (lambda state: {"checkpoint": {"model": state}}, "checkpoint.model"),
        (lambda state: {"student": {"x.weight": torch.ones(1, 1)}, "teacher": state}, "teacher"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, ""),
        (lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()}, ""),
    ],
)
def test_wrapped_checkpoints_give_the_same_layers(tmp_path, wrap, entry):
    model = network()
    torch.save(wrap(dict(model.state_dict())), tmp_path / "model.pt")
    assert names(tmp_path / "model.pt") == list(layer_map(model))
    assert read_tensors(tmp_path / "model.pt")[1] == entry


def test_safetensors_names_are_sorted_with_numbers_as_numbers(tmp_path):
    save_file({f"blocks.{k}.weight": torch.randn(3, 3) for k in (10, 2, 0)}, tmp_path / "model.safetensors")
    assert names(tmp_path / "model.safetensors") == ["blocks.0", "blocks.2", "blocks.10"]


class Hostile:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("saved_by", ["torch", "torch_legacy", "pickle"])
@pytest.mark.parametrize("forced", [False, True])
def test_a_hostile_pickle_is_refused_and_its_code_is_not_run(tmp_path, monkeypatch, saved_by, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "executed", tmp_path / "model.pt"
    content = {"state_dict": {"a.weight": torch.randn(3, 3)}, "extra": Hostile(str(marker))}
    if saved_by == "pickle":
        path.write_bytes(pickle.dumps({"extra": Hostile(str(marker))}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=saved_by == "torch")
    with pytest.raises(TargetError, match=r"model\.pt: refused.*nothing was run") as caught:
        load_target(str(path))
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    torch.load(path, weights_only=False) if saved_by != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the file is harmless, so the test shows nothing"


def test_a_whole_pickled_network_is_refused_and_its_class_named(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(TargetError, match=r"refused.*torch\.nn\.modules\.container\.Sequential.*model\.state_dict"):
        load_target(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_a_damaged_file_is_refused_in_one_paragraph(tmp_path, name, damage):
    path = tmp_path / name
    state = {"a.weight": torch.randn(30, 30)}
    if name.endswith("pt"):
        torch.save(state, path)
    else:
        save_file(state, path)
    data = path.read_bytes()
    broken = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello, world\n" * 9, "flipped": b"\xff" * 80}
    path.write_bytes(broken[damage])
    with pytest.raises(TargetError, match=rf"{name}: (cannot be read|refused)") as caught:
        load_target(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"no state dict in it \(its entries: none\)"),
        ({"a.bias": torch.ones(3)}, "no weight matrices among its 1 tensors"),
        ([torch.ones(2, 2)], "holds a list, not a state dict"),
        ({"epoch": 3, "lr": 0.1}, r"no state dict in it \(its entries: epoch, lr\)"),
        ({"a.weight": torch.ones(3, 3, dtype=torch.int8)}, "no weight matrices"),
        ({"a.weight": torch.ones(0, 3)}, "no weight matrices"),
        ({"a.weight": torch.ones(3, 3, device="meta")}, "no weight matrices"),
        ({"a.weight": torch.eye(3).to_sparse()}, "no weight matrices"),
    ],
)
def test_a_file_without_weights_says_what_is_in_it(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(TargetError, match=message):
        load_target(str(tmp_path / "model.pt"))
