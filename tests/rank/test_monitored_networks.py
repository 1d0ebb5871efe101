"""What a monitor measures of networks of all kinds, and that no way of running one changes its ranks."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sslcollapse.rank.measures import effective_rank
from sslcollapse.rank.monitor import CollapseMonitor


@dataclasses.dataclass
class Output:
    """What the network below puts out."""

    logits: torch.Tensor
    hidden: dict


class Attention(nn.Module):
    """Attention by hand: maps as layers, and one as a bare parameter; puts out a tuple."""

    def __init__(self, width=8):
        super().__init__()
        self.qkv, self.mixing = nn.Linear(width, 3 * width), nn.Parameter(torch.randn(width, width))

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = (q @ k.transpose(1, 2)).softmax(-1)
        return (weights @ v) @ self.mixing, weights


class Dictionary(nn.Module):
    """Puts out a dict."""

    def __init__(self, width=8):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return {"hidden": self.fc(x), "extra": None}


class Everything(nn.Module):
    """Embedding, recurrent layers, a bilinear one and attention; tuples, dicts and a dataclass as outputs."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.lstm, self.gru = nn.LSTM(8, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)
        self.attention, self.dictionary = Attention(), Dictionary()
        self.pair, self.unused, self.head = nn.Bilinear(8, 8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, words):
        x, _ = self.gru(self.lstm(self.table(words))[0])
        x, weights = self.attention(x)
        found = self.dictionary(x)
        return Output(self.head(self.pair(x, found["hidden"])), found | {"weights": weights})


def test_every_part_with_parameters_is_measured_or_named_with_the_reason_why_not():
    torch.manual_seed(0)
    model, words = Everything(), torch.randint(11, (6, 7))
    with pytest.warns(UserWarning, match="lstm"):
        monitor = CollapseMonitor(model, every=1)
    with monitor:
        hidden = model(words).hidden["hidden"]
        rows = {row.layer: row for row in monitor.summary() if row.kind == "output"}
        named = monitor.unmeasured
    assert rows.keys() == {"attention.qkv", "dictionary.fc", "head"}
    assert rows["dictionary.fc"].n == 42
    assert rows["dictionary.fc"].effective_rank == pytest.approx(
        effective_rank(hidden.detach().flatten(0, 1)), rel=1e-4
    )
    parts = {
        "table.weight": "an embedding is a table",
        "lstm": "is recurrent",
        "gru": "is recurrent",
        "attention.mixing": "how Attention uses it is not known",
        "unused": "it did not run in a measured forward",
    }
    stack = {f"pair.weight.{number}" for number in range(8)}  # one matrix for each of its outputs
    assert named.keys() == parts.keys() | stack
    assert all(reason in named[name] for name, reason in parts.items())
    assert {named[name] for name in stack} == {
        "its module puts out no product of this weight alone; the weight is measured"
    }
    # Nothing is left over: every matrix is in a layer that ran or in a part that is named.
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            assert any(name.startswith(known) or known.startswith(name) for known in (*rows, *named)), name


def test_an_attention_of_torch_is_named_since_its_maps_have_no_output_of_their_own():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with CollapseMonitor(model, every=1) as monitor:
        model(torch.randn(4, 3, 8))
        monitor.summary()
    maps = {f"self_attn.in_proj.{letter}" for letter in "qkv"}
    assert monitor.unmeasured.keys() >= maps | {"self_attn.out_proj"}
    assert all("no product of this weight alone" in monitor.unmeasured[name] for name in maps)
    assert not monitor.unmeasured.keys() & {"linear1", "linear2"}


class Blocks(nn.Module):
    """Two blocks; their activations may be computed again in the backward pass, or under a narrow type."""

    def __init__(self, kept="all", autocast=False):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16))
        self.second = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
        self.kept, self.autocast = kept, autocast

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            for block in (self.first, self.second):
                x = block(x) if self.kept == "all" else checkpoint(block, x, use_reentrant=self.kept == "reentrant")
        return x


def ranks(model, watched=None, steps=3):
    """Layer and kind → rank and number of rows after some steps, of which every second one is measured."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rng = torch.Generator().manual_seed(1)
    with CollapseMonitor(model if watched is None else watched, every=2) as monitor:
        for _ in range(steps):
            x = torch.randn(24, 12, generator=rng, requires_grad=True)  # which a reentrant checkpoint needs
            loss = model(x).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {(row.layer.removeprefix("module."), row.kind): (row.effective_rank, row.n) for row in monitor.summary()}


@pytest.fixture(scope="module")
def plain():
    """Ranks of the network as it is."""
    return ranks(Blocks())


def test_the_ranks_of_a_compiled_network_are_those_of_the_plain_one(plain):
    torch._dynamo.reset()
    found = ranks(torch.compile(Blocks(), backend="aot_eager"))
    assert found == {key: (pytest.approx(rank, rel=1e-4), n) for key, (rank, n) in plain.items()}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a compiler")
def test_inductor_too():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(12, 16), nn.ReLU()), torch.randn(24, 12)
    compiled = torch.compile(model)
    with CollapseMonitor(compiled, every=2) as monitor, torch.no_grad():
        for _ in range(3):  # the second is compiled, and the third measured again
            compiled(x)
        (row,) = (row for row in monitor.summary() if row.kind == "output")
    assert row.n == 48
    assert row.effective_rank == pytest.approx(effective_rank(model[0](x).detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("kept", "compiled"), [("reentrant", False), ("not reentrant", False), ("not reentrant", True)]
)
def test_activations_that_are_computed_again_are_counted_once(plain, kept, compiled):
    torch._dynamo.reset()
    model = Blocks(kept)
    found = ranks(torch.compile(model, backend="aot_eager") if compiled else model)
    assert found == {key: (pytest.approx(rank, rel=1e-4), n) for key, (rank, n) in plain.items()}
    assert {n for _, n in found.values()} == {48, None}  # two measured steps of 24 rows


def test_ranks_under_autocast_are_those_of_the_plain_network_within_its_rounding(plain):
    found = ranks(Blocks(autocast=True))
    assert found == {key: (pytest.approx(rank, rel=2e-2), n) for key, (rank, n) in plain.items()}


def test_a_weight_that_several_layers_share_is_computed_once_a_summary():
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")

    class Counting(nn.Module):
        calls = 0

        def forward(self, weight):
            Counting.calls += 1
            return weight

    block = vision_transformer.Attention(8, num_heads=2)
    nn.utils.parametrize.register_parametrization(block.qkv, "weight", Counting())
    with CollapseMonitor(block, every=1) as monitor:
        block(torch.randn(4, 3, 8))
        Counting.calls = 0
        rows = monitor.summary()
    assert Counting.calls == 1
    assert [(row.layer, row.kind) for row in rows] == [
        (layer, kind) for layer in ("qkv.q", "qkv.k", "qkv.v", "proj") for kind in ("weight", "output")
    ]
