"""Exports that somebody else made: loaded without a network, another file, or more memory than their tensors."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import tiny_recipe
from torch import nn
from torch.nn.modules import module as torch_module

from sslcollapse.cli import main
from sslcollapse.core.errors import DataError, RecipeError, RunError
from sslcollapse.core.registry import ENCODERS
from sslcollapse.encoders import mlp
from sslcollapse.nn.init import check_widths
from sslcollapse.rank.diagnose.targets import load_target
from sslcollapse.runs.export import check_exportable, load_encoder, save_encoder
from sslcollapse.runs.hub import HubEncoder
from sslcollapse.runs.rebuild import offline, why_not_loadable
from sslcollapse.training.trainer import train

VIT = dict(
    type="timm",
    model="vit_tiny_patch16_224",
    kwargs=dict(embed_dim=24, depth=2, num_heads=3, patch_size=8),
)
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module", autouse=True)
def encoders(own_components):
    """The encoders of this module are known to it only."""
    ENCODERS.register("reads_scalars")(ReadsScalars)
    ENCODERS.register("reads_weights")(ReadsWeights)
    ENCODERS.register("grows")(Grows)
    ENCODERS.register("of_somebody")(OfSomebody)


@pytest.fixture(autouse=True)
def blocked_socket(monkeypatch):
    """A connection, or the question for an address, ends the test with an error of its own."""

    def refuse(*_, **__):
        pytest.fail("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def export(folder: Path, spec: dict, in_shape: tuple[int, ...], changes: dict | None = None) -> Path:
    """An export of the encoder of ``spec``, whose description is then changed."""
    folder.mkdir(exist_ok=True)
    recipe = tiny_recipe("export", optim=dict(type="adamw", lr=1e-3), train=dict(steps=1)) | dict(encoder=spec, seed=0)
    save_encoder(folder, ENCODERS.build(spec, in_shape), recipe, in_shape, 1)
    described = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**described, **(changes or {})}))
    return folder


LOCAL = "the file of another export"
SOURCES = [
    dict(pretrained=True),
    dict(kwargs=dict(pretrained_cfg_overlay=dict(url="http://127.0.0.1:9/weights"))),
    dict(pretrained=True, kwargs=dict(pretrained_cfg_overlay=dict(url="http://127.0.0.1:9/weights"))),
    dict(pretrained=True, kwargs=dict(pretrained_cfg=dict(hf_hub_id="somebody/something"))),
    dict(kwargs=dict(checkpoint_path=LOCAL)),
    dict(pretrained=True, kwargs=dict(pretrained_cfg=dict(file=LOCAL), cache_dir=LOCAL)),
]


@pytest.mark.parametrize("source", SOURCES)
def test_an_export_that_names_other_weights_loads_its_own_without_network_and_files(source, tmp_path, monkeypatch):
    spec = {**VIT, **source, "kwargs": {**VIT["kwargs"], **source.get("kwargs", {})}}
    folder = export(tmp_path / "run", VIT, SHAPE)
    plain, _ = load_encoder(folder)
    (tmp_path / "run" / "encoder.json").write_text(
        json.dumps({**json.loads((folder / "encoder.json").read_text()), "encoder": spec}).replace(
            LOCAL, str(tmp_path / "other.pt")
        )
    )
    os.mkfifo(tmp_path / "other.pt")  # opening it would not come back
    fail = lambda *_, **__: pytest.fail("weights were looked for")  # noqa: E731
    monkeypatch.setattr(timm.models._builder, "load_pretrained", fail)
    for load in (lambda: load_encoder(folder)[0], lambda: HubEncoder.from_pretrained(folder).encoder):
        assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), load().parameters(), strict=True))
    target = load_target(str(folder))
    assert len(target.networks(SHAPE)) == 2
    assert main(["diagnose", str(folder), "--fail-on", "never"]) == 0


def test_what_names_no_weights_is_kept():
    spec = {**VIT, "kwargs": dict(depth=2, norm=dict(eps=1e-5))}
    assert offline(spec) == spec
    assert offline(dict(type="timm", pretrained=True, kwargs=dict(pretrained_cfg=1))) == dict(
        type="timm", pretrained=False, kwargs={}
    )


GCN = dict(type="gcn", hidden=[8, 4])
MLP = dict(type="mlp", hidden=[8, 4])
GAT = dict(type="pyg", module="GAT", out_dim=4, kwargs=dict(hidden_channels=8, num_layers=2))
HOSTILE = [
    (GCN, (5,), dict(in_shape=[10**9]), "in_shape .* for one input"),
    (GCN, (5,), dict(in_shape=[10**12]), "in_shape .* for one input"),
    (GCN, (5,), dict(in_shape=[10**7]), r"does not fit encoder\.json"),
    (GCN, (5,), dict(in_shape=[]), "in_shape must be a list of positive numbers"),
    (GCN, (5,), dict(in_shape=["x"]), "in_shape must be a list of positive numbers"),
    (GCN, (5,), dict(in_shape={"a": 1}), "in_shape must be a list of positive numbers"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[10**9, 4])), "makes a tensor"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[10**400, 4])), "cannot be built"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[60000, 60000])), "does not fit|makes a tensor"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[8] * 100_000)), "has more than [\\d,]+ parameters"),
    (MLP, (5,), dict(encoder=dict(type="mlp", hidden=[8] * 100_000)), "has more than [\\d,]+ parameters"),
    (GCN, (5,), dict(encoder=[]), "cannot be built"),
    (GCN, (5,), dict(encoder=dict(type="nothing")), "unknown encoder 'nothing'"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[8, 4], other=1)), "unknown argument"),
    (GCN, (5,), dict(encoder=dict(type="gcn", hidden=[8, 5])), r"encoder\.safetensors does not fit encoder\.json"),
    (GAT, (5,), dict(encoder={**GAT, "module": "DataParallel"}), "is not called as module"),
    (GAT, (5,), dict(encoder={**GAT, "module": "Sequential"}), "is not called as module"),
    (GAT, (5,), dict(encoder={**GAT, "kwargs": dict(hidden_channels=8, num_layers=60000)}), "has more than"),
    (VIT, SHAPE, dict(in_shape=[3, 60000, 60000]), "in_shape .* for one input"),
    (VIT, SHAPE, dict(encoder={**VIT, "kwargs": dict(depth=60000)}), "has more than"),
    (VIT, SHAPE, dict(encoder={**VIT, "kwargs": dict(embed_dim=60000, depth=1)}), "does not fit|makes a tensor"),
    (VIT, SHAPE, dict(encoder={**VIT, "kwargs": dict(depth=10**9)}), r"encoder\.kwargs\.depth is 1000000000"),
    (VIT, SHAPE, dict(encoder={**VIT, "kwargs": dict(depth=2 * 10**7)}), r"encoder\.kwargs\.depth is 20000000"),
]


@pytest.mark.parametrize(("spec", "in_shape", "changes", "message"), HOSTILE)
def test_a_description_that_its_tensors_do_not_bear_out_is_refused_soon(spec, in_shape, changes, message, tmp_path):
    folder = export(tmp_path, spec, in_shape, changes)
    began = time.monotonic()
    with pytest.raises(RunError, match=message):
        load_encoder(folder)
    assert time.monotonic() - began < 90  # tens of seconds to hours, or gigabytes, if it were built


@pytest.mark.parametrize(
    "text", [b"\xff", b"[" * 100_000, b'{"in_shape": ' + b"1" * 5000 + b"}", b"[]", b"null", b'"x"', b"{"]
)
def test_a_description_that_is_no_json_object_is_refused(text, tmp_path):
    folder = export(tmp_path, GCN, (5,))
    (folder / "encoder.json").write_bytes(text)
    with pytest.raises(RunError, match="no readable exported encoder"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors"])
def test_a_pipe_in_place_of_a_file_of_an_export_is_not_waited_for(name, tmp_path):
    folder = export(tmp_path, GCN, (5,))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises((RunError, DataError), match="named pipe"):
        load_encoder(folder)


def test_a_refusal_leaves_no_hook_behind(tmp_path):
    with pytest.raises(RunError):
        load_encoder(export(tmp_path, GCN, (5,), dict(encoder=dict(type="gcn", hidden=[8] * 100_000))))
    assert not torch_module._global_parameter_registration_hooks
    assert not torch_module._global_module_registration_hooks


def test_a_tensor_that_is_not_stored_is_named(tmp_path):
    folder = export(tmp_path, GCN, (5,))
    state = load_encoder(folder)[0].state_dict()
    del state["convs.1.weight"]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "encoder.safetensors")
    with pytest.raises(RunError, match=r"does not fit encoder\.json: convs\.1\.weight is not stored"):
        load_encoder(folder)


READS = {
    "item": lambda rates: [rate.item() for rate in rates],
    "tolist": lambda rates: rates.tolist(),
    "numpy": lambda rates: list(rates.numpy()),
    "float": lambda rates: [float(rate) for rate in rates],
    "of a list": lambda rates: torch.tensor([0.25, *rates]).cumsum(0)[1:].tolist(),
    "where": lambda rates: [i / 10 for i in torch.nonzero(rates >= 0).flatten().tolist()],
}


class ReadsScalars(mlp.MLP):
    """Has dropout rates that its constructor reads out of a tensor, and a seed."""

    def __init__(self, in_shape, *, hidden: list[int] = (300, 300), read: str = "item", seed: int = 0):
        super().__init__(in_shape, hidden=hidden)
        self.drops = nn.ModuleList(nn.Dropout(float(p)) for p in READS[read](torch.linspace(0, 0.4, 3)))
        self.seed = seed
        self.register_buffer("scale", self.layers[1].weight.detach().mean(0) * torch.ones(300))  # of large and small


class ReadsWeights(mlp.MLP):
    """Reads a number out of a large tensor."""

    def __init__(self, in_shape, *, hidden: list[int] = (300, 300)):
        super().__init__(in_shape, hidden=hidden)
        self.spread = self.layers[1].weight.std().item()


class Grows(mlp.MLP):
    """Is wider each time that it is built, so no description leads to it again."""

    built = 0

    def __init__(self, in_shape):
        Grows.built += 1
        super().__init__(in_shape, hidden=[8, 4 + Grows.built])


@pytest.mark.parametrize("read", READS)
def test_an_encoder_that_reads_numbers_out_of_tensors_in_its_constructor_is_loaded(read, tmp_path):
    spec = dict(type="reads_scalars", read=read)
    encoder = ENCODERS.build(spec, (5,))
    check_exportable(encoder, spec, (5,))
    loaded, _ = load_encoder(export(tmp_path, spec, (5,)))
    assert [drop.p for drop in loaded.drops] == [drop.p for drop in encoder.drops]
    assert not any(value.is_meta for value in loaded.state_dict().values())


def test_an_integer_that_is_no_size_may_be_large(tmp_path):
    loaded, _ = load_encoder(export(tmp_path, dict(type="reads_scalars", seed=20240101), (5,)))
    assert loaded.seed == 20240101


def test_an_export_of_an_encoder_of_twenty_million_features_is_loaded(tmp_path):
    loaded, _ = load_encoder(export(tmp_path, dict(type="mlp", hidden=[1], norm="none"), (20_000_000,)))
    assert loaded.layers[0].weight.shape == (1, 20_000_000)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("reads_weights", r"reads numbers of a tensor of shape \[\].*test_rebuild\.py: self\.spread = .*\.item\(\)"),
        ("grows", "is stored as .*, the encoder has"),
    ],
)
def test_an_encoder_that_could_not_be_loaded_is_refused_before_training_with_the_reason(kind, message, tmp_path):
    recipe = tiny_recipe("unloadable", optim=dict(type="adamw", lr=1e-3), train=dict(steps=2))
    with pytest.raises(RecipeError, match=f"could not be loaded again: .*{message}"):
        train(recipe | dict(encoder=dict(type=kind)), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("spec", "in_shape"), [(GCN, (5,)), (GAT, (5,)), (VIT, SHAPE)])
def test_the_check_before_training_draws_no_random_numbers(spec, in_shape):
    encoder = ENCODERS.build(spec, in_shape)
    before = torch.get_rng_state()
    check_exportable(encoder, spec, in_shape)
    assert torch.equal(before, torch.get_rng_state())


class OfSomebody(nn.Module):
    """An encoder whose constructor gives a function of this package what it cannot take."""

    def __init__(self, in_shape, *, width: int = 4):
        super().__init__()
        self.out_dim = sum(check_widths(width))


def test_a_reason_names_the_line_of_the_constructor_that_failed_and_none_of_this_package():
    reason = why_not_loadable(dict(type="of_somebody"), [3], {"w": torch.zeros(2)})
    assert reason.endswith("of test_rebuild.py: self.out_dim = sum(check_widths(width)))")
