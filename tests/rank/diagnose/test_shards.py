"""Folders of shards, read one tensor at a time; entries; settings in checkpoints; names of models."""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sslcollapse
from sslcollapse.cli import main
from sslcollapse.rank.diagnose import shards
from sslcollapse.rank.diagnose.matrices import kind_of_layer
from sslcollapse.rank.diagnose.state_dict import TargetError, read_tensors
from sslcollapse.rank.diagnose.targets import load_target
from sslcollapse.rank.diagnose.verdicts import spectrum_of


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {"model.embed_tokens.weight": torch.randn(50, 16)}
    for k in range(2):
        for name, shape in (("self_attn.q_proj", (16, 16)), ("mlp.up_proj", (48, 16)), ("mlp.experts.0.w1", (24, 16))):
            found[f"model.layers.{k}.{name}.weight"] = torch.randn(*shape)
    return found


def write(folder, suffix: str = ".safetensors", config: bool = True):
    """Two shards with their index, as Hugging Face saves them."""
    folder.mkdir(exist_ok=True)
    names = list(state())
    stem, places = ("model" if suffix == ".safetensors" else "pytorch_model"), {}
    for number, part in enumerate((names[:4], names[4:]), start=1):
        file = f"{stem}-{number:05d}-of-00002{suffix}"
        tensors = {name: state()[name].clone() for name in part}
        save_file(tensors, folder / file) if suffix == ".safetensors" else torch.save(tensors, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": places}))
    if config:
        (folder / "config.json").write_text(json.dumps({"architectures": ["TinyForCausalLM"], "model_type": "tiny"}))
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_give_the_rows_of_the_whole_state_dict(tmp_path, suffix):
    found = sslcollapse.diagnose(write(tmp_path / "m", suffix))
    whole = sslcollapse.diagnose(state())
    assert {row.layer: row.effective_rank for row in found.rows} == {
        row.layer: row.effective_rank for row in whole.rows
    }
    assert found.coverage.share == whole.coverage.share < 1
    assert [part.name for part in found.coverage.uncovered] == ["model.embed_tokens.weight"]
    assert "TinyForCausalLM, tiny" in found.title


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_one_tensor_is_in_memory_at_a_time(tmp_path, monkeypatch, suffix):
    alive: list[weakref.ref] = []
    most = [0]
    real = shards._read

    def counted(path, name):
        most[0] = max(most[0], sum(ref() is not None for ref in alive))
        tensor = real(path, name)
        alive.append(weakref.ref(tensor.untyped_storage()))
        alive.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(shards, "_read", counted)
    assert len(sslcollapse.diagnose(write(tmp_path / "m", suffix)).layers) == 6
    assert len(alive) == 12
    assert most[0] == 0  # at each reading all that were read before are gone


PEAK = """
import resource, sys
import sslcollapse
from sslcollapse.rank.diagnose import entry, outputs  # what is imported does not count
sslcollapse.diagnose({{"a.weight": __import__("torch").randn(64, 64)}})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = sslcollapse.diagnose({folder!r})
print(len(found.layers), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_checkpoint_takes_the_memory_of_one_tensor_and_not_its_own(tmp_path):
    """Twelve tensors of 16 MiB: 192 MiB in all, and one of them in float64 has 32."""
    for shard in range(3):
        tensors = {f"l.{4 * shard + k}.weight": torch.randn(16, 2**18) for k in range(4)}
        save_file(tensors, tmp_path / f"model-0000{shard + 1}-of-00003.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", PEAK.format(folder=str(tmp_path))], capture_output=True, text=True, check=True
    )
    layers, grown = map(int, run.stdout.split())
    assert layers == 12
    assert grown < 130


def test_a_large_matrix_has_the_spectrum_that_it_has_as_a_whole(monkeypatch):
    monkeypatch.setattr("sslcollapse.rank.diagnose.verdicts._WHOLE", 100)
    for shape in ((12, 50), (50, 12)):
        weight = torch.randn(*shape)
        torch.testing.assert_close(spectrum_of(weight), torch.linalg.svdvals(weight.double()), rtol=1e-6, atol=1e-9)


def test_layers_are_grouped_by_name_as_attention_mlp_and_experts(tmp_path, capsys):
    assert main(["diagnose", str(write(tmp_path / "m"))]) == 0
    shown = capsys.readouterr().out
    assert "attention: 2 layers" in shown
    assert "MLP: 2 layers" in shown
    assert "experts: 2 layers" in shown
    assert [kind_of_layer(name) for name in ("h.0.attn.c_attn", "h.0.mlp.c_fc", "lm_head", "conv1")] == [
        "attention",
        "MLP",
        "output map",
        "other",
    ]


def test_a_missing_shard_is_named(tmp_path):
    folder = write(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(TargetError, match=r"1 of 2 shards are missing: model-00002-of-00002"):
        load_target(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "no index of shards"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "refused: names '../secret.safetensors'"),
        ('{"weight_map": {"nowhere.weight": "model-00001-of-00002.safetensors"}}', "nowhere.weight is in .* it is not"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, index, message):
    folder = write(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(TargetError, match=message):
        load_target(folder)


def test_a_weight_with_scales_beside_it_is_named_as_quantised(tmp_path):
    tensors = {
        **{"a.weight": torch.randn(8, 8).to(torch.float8_e4m3fn), "a.weight_scale_inv": torch.ones(1, 1)},
        **{"b.weight": torch.randn(8, 8), "c.qweight": torch.ones(8, 8, dtype=torch.int32)},
    }
    save_file(tensors, tmp_path / "model.safetensors")
    found = sslcollapse.diagnose(tmp_path)
    assert [row.layer for row in found.rows] == ["b"]
    assert {part.name for part in found.coverage.unread} >= {"a.weight", "c.qweight"}


def checkpoint(path):
    settings = argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), at=types.SimpleNamespace(a=1))
    networks = {name: {"a.weight": torch.full((3, 3), float(k))} for k, name in enumerate(("student", "teacher"))}
    torch.save({**networks, "args": settings, "when": datetime.datetime(2025, 1, 1), "best": np.float64(1)}, path)
    return path


def test_a_checkpoint_with_settings_is_read_and_its_other_networks_are_listed(tmp_path):
    target = load_target(checkpoint(tmp_path / "c.pth"))
    assert "entry teacher; --entry takes another: student" in target.title
    assert float(next(iter(target.matrices)).weight[0, 0]) == 1


def test_an_entry_is_taken_by_name_and_a_wrong_one_lists_what_there_is(tmp_path):
    path = str(checkpoint(tmp_path / "c.pth"))
    assert float(next(iter(load_target(path, entry="student").matrices)).weight[0, 0]) == 0
    with pytest.raises(TargetError, match=r"no entry 'studnet'; did you mean 'student'\? \(it has: student, teacher"):
        load_target(path, entry="studnet")
    assert main(["diagnose", path, "--entry", "student", "--fail-on", "never"]) == 0


def test_an_entry_may_be_what_names_begin_with(tmp_path):
    torch.save({"module": {"encoder.a.weight": torch.eye(3), "head.a.weight": torch.eye(4)}}, tmp_path / "c.pt")
    save_file({"encoder.a.weight": torch.eye(3), "head.a.weight": torch.eye(4)}, tmp_path / "c.safetensors")
    for path, entry in ((tmp_path / "c.pt", "module.head"), (tmp_path / "c.safetensors", "head")):
        (matrix,) = load_target(path, entry=entry).matrices
        assert (matrix.name, len(matrix.weight)) == ("a", 4)


class Runs:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_settings_that_would_run_code_are_refused_and_run_nothing(tmp_path):
    content = {"model": {"a.weight": torch.eye(3)}, "args": argparse.Namespace(x=Runs(str(tmp_path / "made")))}
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(TargetError, match=r"reading it would run code \(\w+\.mkdir\).*nothing was run"):
        read_tensors(tmp_path / "c.pt")
    assert not (tmp_path / "made").exists()


def test_a_class_of_settings_is_not_looked_up(tmp_path, monkeypatch):
    module = types.ModuleType("omegaconf_made_up")
    kind = type("Settings", (), {"__module__": "omegaconf.made_up"})
    kind.__qualname__ = "Settings"
    module.Settings = kind
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.made_up", module)
    torch.save({"model": {"a.weight": torch.eye(3)}, "cfg": kind()}, tmp_path / "c.pt")
    monkeypatch.undo()
    assert read_tensors(tmp_path / "c.pt").entry == "model"
    assert "omegaconf.made_up" not in sys.modules


def test_a_model_of_torchvision_is_read_by_name():
    found = sslcollapse.diagnose("torchvision:squeezenet1_1")
    assert (found.verdict, "random initialisation" in found.title) == ("healthy", True)
    with pytest.raises(TargetError, match="torchvision:resnet81: torchvision has no model of that name; did you mean"):
        load_target("torchvision:resnet81")


def test_a_repository_of_the_hub_is_read_from_the_cache_and_without_a_network_said_to_be_missing(tmp_path):
    """In a process of its own: the client reads its settings when it is imported."""
    snapshot = tmp_path / "hub/models--org--tiny/snapshots/abc"
    snapshot.parent.mkdir(parents=True)
    write(snapshot)
    refs = tmp_path / "hub/models--org--tiny/refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    code = (
        "import sys; from sslcollapse.cli import main\n"
        "codes = [main(['diagnose', name]) for name in ('hf:org/tiny', 'hf:org/other')]\nprint(codes)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "hf:org/tiny (TinyForCausalLM, tiny)" in run.stdout
    assert run.stdout.strip().endswith("[0, 2]")
    assert "hf:org/other: cannot be downloaded" in run.stderr
    assert "give the folder" in run.stderr
    assert run.stderr.count("\n") == 1


def test_an_adapter_without_its_other_half_is_named():
    found = sslcollapse.diagnose({"a.weight": torch.eye(4), "b.lora_A.weight": torch.ones(2, 4)})
    assert "one of the two factors of a low-rank adapter" in found.coverage.unread[0].reason
