"""A file's weights are those that act, or named as not read; stacks and fused maps are cut where the file shows it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn import RGCNConv

from sslcollapse import effective_rank
from sslcollapse.cli import main
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.diagnose.diagnosis import weigh
from sslcollapse.rank.diagnose.matrices import find_matrices

sys.path.insert(0, str(Path(__file__).parents[2] / "layers"))
from test_fused_maps import TIMM, timm_attention


def pruned(linear: nn.Linear) -> nn.Linear:
    prune.ln_structured(linear, "weight", 0.5, n=2, dim=0)
    prune.random_unstructured(linear, "bias", 0.5)
    return linear


REPARAMETRIZED = {
    "pruning": lambda: pruned(nn.Linear(6, 4)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(6, 4)),
    "weight norm of columns": lambda: parametrizations.weight_norm(nn.Linear(6, 4), dim=1),
    "weight norm of a convolution": lambda: parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
    "older weight norm": lambda: torch.nn.utils.weight_norm(nn.Linear(6, 4)),
    "older weight norm of the whole": lambda: torch.nn.utils.weight_norm(nn.Linear(6, 4), dim=None),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(6, 4, 3)),
    "older spectral norm": lambda: torch.nn.utils.spectral_norm(nn.Linear(6, 4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", REPARAMETRIZED)
def test_a_weight_that_is_stored_in_parts_is_read_as_the_network_reads_it(key):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 6), REPARAMETRIZED[key]()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    found, coverage = find_matrices(network.state_dict())
    expected = layer_map(network)
    assert [matrix.name for matrix in found] == list(expected)
    for matrix in found:
        torch.testing.assert_close(matrix.weight, expected[matrix.name].weight().detach())
    assert not coverage.uncovered


def test_pruned_rows_count_as_lost(tmp_path):
    torch.manual_seed(0)
    linear = nn.Linear(64, 64)
    prune.ln_structured(linear, "weight", 0.95, n=2, dim=0)
    torch.save(nn.Sequential(linear).state_dict(), tmp_path / "pruned.pt")
    assert main(["diagnose", str(tmp_path / "pruned.pt"), "--json", str(tmp_path / "report.json")]) == 1
    (layer,) = json.loads((tmp_path / "report.json").read_text())["layers"]
    assert layer["weight"]["effective_rank"] == pytest.approx(3.0, abs=0.1)
    assert layer["verdict"] == "collapsed"


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).t()


def symmetric() -> nn.Module:
    linear = nn.Linear(6, 6)
    parametrize.register_parametrization(linear, "weight", Symmetric())
    return linear


@pytest.mark.parametrize("make", [lambda: parametrizations.orthogonal(nn.Linear(6, 6)), symmetric])
def test_a_parametrization_that_a_file_does_not_explain_is_not_read(make):
    found, coverage = find_matrices(nn.Sequential(nn.Linear(6, 6), make()).state_dict())
    assert [matrix.name for matrix in found] == ["0"]
    (left,) = coverage.unread
    assert (left.name, left.parameters) == ("1.weight", 36)
    assert "remove_parametrizations" in left.reason
    assert coverage.parameters >= coverage.covered + left.parameters


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"a.weight_orig": torch.ones(4, 4)}, "not the mask"),
        (
            {f"a.parametrizations.weight.original{k}": torch.ones(4 - 2 * k, 2 + 2 * k) for k in range(2)},
            "a parametrization computes it",
        ),
        ({"a.weight_ih_l0": torch.ones(4, 4)}, "recurrent"),
        ({"a.weight_hh_l1_reverse": torch.ones(4, 4)}, "recurrent"),
        ({"a.weight": torch.ones(4, 4, dtype=torch.int8)}, "quantised"),
        ({"a.weight": torch.ones(4, 4, 3, 3), "a.gain": torch.ones(4, 1, 1, 1)}, "standardises"),
        ({"a.weight": torch.ones(4, 64, 64), "a.bias": torch.ones(4)}, "stack of matrices or the kernel"),
        ({"a.weight1": torch.ones(4, 4)}, "does not say that it is a weight"),
    ],
)
def test_what_is_not_read_in_a_file_has_its_reason(state, reason):
    found, coverage = find_matrices({"b.weight": torch.randn(5, 5), **state})
    assert [matrix.name for matrix in found] == ["b"]
    (left,) = coverage.unread
    assert reason in left.reason
    assert left.name.startswith("a.weight")


def test_an_affine_weight_of_several_dimensions_is_no_layer_of_a_file(tmp_path):
    torch.manual_seed(0)
    norm = nn.LayerNorm([32, 16, 16])
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(32, 32, 3))
    torch.save(network.state_dict(), tmp_path / "net.pt")
    assert main(["diagnose", str(tmp_path / "net.pt"), "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == ["0", "3"]
    assert [part["name"] for part in report["coverage"]["uncovered"]] == ["1.weight", "1.bias"]
    assert not any(part["unread"] for part in report["coverage"]["uncovered"])


def test_a_normalisation_without_a_bias_is_known_by_its_name():
    found, _ = find_matrices({"a.weight": torch.randn(4, 4), "a.norm1.weight": torch.ones(5, 4)})
    assert [matrix.name for matrix in found] == ["a"]


def test_a_complex_weight_of_a_file_is_measured_as_one():
    real, imaginary = torch.randn(9, 1) @ torch.randn(1, 7), torch.randn(9, 7)
    (matrix,) = find_matrices({"a.weight": torch.complex(real, imaginary)})[0]
    assert weigh(matrix).rank.effective_rank > 4  # of its real part: 1


def test_a_tied_output_map_is_a_layer_of_a_file():
    table = torch.randn(9, 4)
    found, coverage = find_matrices({"wte.weight": table, "lm_head.weight": table})
    assert [matrix.name for matrix in found] == ["lm_head"]
    assert (coverage.covered, coverage.parameters, coverage.uncovered) == (36, 36, ())


def test_experts_in_a_file_are_one_layer_an_expert():
    torch.manual_seed(0)
    found, coverage = find_matrices({"moe.experts.weight": torch.randn(8, 64, 1) @ torch.randn(8, 1, 64)})
    assert [matrix.name for matrix in found] == [f"moe.experts.weight.{k}" for k in range(8)]
    assert {matrix.depth for matrix in found} == {0}
    for matrix in found:
        assert matrix.weight.shape == (64, 64)
        assert float(effective_rank(matrix.weight)) == pytest.approx(1.0, abs=1e-3)
    assert coverage.share == 1.0


@pytest.mark.parametrize("options", [{}, dict(num_bases=2), dict(num_blocks=2)])
def test_relations_in_a_file_are_those_of_the_network(options):
    network = nn.Sequential(RGCNConv(6, 4, num_relations=3, **options))
    found, coverage = find_matrices(network.state_dict())
    expected = layer_map(network)
    assert sorted(matrix.name for matrix in found) == sorted(expected)
    for matrix in found:
        torch.testing.assert_close(matrix.weight, expected[matrix.name].weight().detach())
    assert not coverage.uncovered


@pytest.mark.parametrize(
    ("state", "layers"),
    [
        ({"a.weight": torch.randn(8, 4, 3), "a.bias": torch.randn(8)}, {"a": (8, 12)}),
        ({"a.weight": torch.randn(8, 4, 3)}, {"a": (8, 12)}),
        ({"a.weight": torch.randn(2, 4, 3), "a.bias": torch.randn(2, 4)}, {f"a.weight.{k}": (4, 3) for k in range(2)}),
        ({"a.weight": torch.randn(2, 4, 3), "a.bias": torch.randn(4)}, {f"a.weight.{k}": (4, 3) for k in range(2)}),
        ({"a.weight": torch.randn(2, 40, 50)}, {f"a.weight.{k}": (40, 50) for k in range(2)}),
        ({"mlp.experts.down_proj": torch.randn(2, 4, 3)}, {f"mlp.experts.down_proj.{k}": (4, 3) for k in range(2)}),
        ({"experts.0.conv.weight": torch.randn(8, 4, 3)}, {"experts.0.conv": (8, 12)}),
    ],
)
def test_three_dimensions_are_a_kernel_or_a_stack_by_name_and_bias(state, layers):
    found, _ = find_matrices(state)
    assert {matrix.name: tuple(matrix.weight.shape) for matrix in found} == layers


@pytest.mark.parametrize("key", [key for key in TIMM if "Scaling" not in key])
def test_a_fused_map_in_a_file_is_cut_as_its_attention_has_it_or_not_at_all(key):
    network = nn.ModuleDict({"attn": timm_attention(key)})
    expected = layer_map(network)
    found, _ = find_matrices(network.state_dict())
    for matrix in found:
        if matrix.name.rpartition(".")[2] in ("q", "k", "v") and ".qkv" in matrix.name:
            assert torch.equal(matrix.weight, expected[matrix.name].weight())


def test_the_fused_maps_of_vision_transformers_are_cut_in_a_file_and_others_are_not():
    cut, whole = (
        ["models.beit.Attention", "models.xcit.XCA"],
        ["models.tiny_vit.Attention", "models.maxxvit.AttentionCl"],
    )
    for key in cut + whole:
        found, _ = find_matrices(nn.ModuleDict({"attn": timm_attention(key)}).state_dict())
        assert any(matrix.name == "attn.qkv.q" for matrix in found) == (key in cut)


@pytest.mark.parametrize(
    "state",
    [
        {"attn.qkv.weight": torch.randn(96, 64), "attn.proj.weight": torch.randn(64, 64)},  # 4 + 1 + 1 heads of 16
        {
            "attn.qkv.weight": torch.randn(192, 64),
            "attn.proj.weight": torch.randn(64, 64),
            "attn.attention_biases": torch.randn(4, 9),
        },
        {"attn.qkv.weight": torch.randn(192, 64)},
        {"attn.query_key_value.weight": torch.randn(192, 64), "attn.dense.weight": torch.randn(64, 64)},
        {"attn.in_proj_weight": torch.randn(192, 64)},
    ],
)
def test_a_fused_map_of_which_a_file_does_not_show_the_parts_stays_whole(state):
    found, _ = find_matrices(state)
    assert found[0].name in ("attn.qkv", "attn.query_key_value", "attn.in_proj")


def test_the_report_names_what_is_not_read_and_the_share_that_is(tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(32, 64), nn.LSTM(64, 64)).state_dict(), tmp_path / "net.pt")
    assert main(["diagnose", str(tmp_path / "net.pt"), "--json", str(tmp_path / "report.json")]) == 0
    shown = capsys.readouterr().out
    assert "not read: 1.weight_ih_l0, 1.weight_hh_l0: 32,768 parameters: a weight of a recurrent network" in shown
    assert "the layers hold 2,048 of 35,392 parameters (5.8%)" in shown
    coverage = json.loads((tmp_path / "report.json").read_text())["coverage"]
    assert coverage["share"] == pytest.approx(2048 / 35392)
    assert [part["name"] for part in coverage["uncovered"]] == ["1.weight_ih_l0", "1.weight_hh_l0"]


def test_a_file_of_which_nothing_is_read_says_why(tmp_path, capsys):
    torch.save(nn.LSTM(8, 8).state_dict(), tmp_path / "net.pt")
    assert main(["diagnose", str(tmp_path / "net.pt")]) == 2
    assert "recurrent network" in capsys.readouterr().err
