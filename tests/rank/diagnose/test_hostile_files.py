"""Files of tensors that claim more than they hold, or wait, or write to the terminal."""

import io
import os
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from sslcollapse.cli import main
from sslcollapse.core.errors import DataError
from sslcollapse.rank.diagnose.state_dict import TargetError
from sslcollapse.rank.diagnose.targets import load_target


def test_a_tensor_of_one_stored_number_that_claims_160_gigabytes_is_refused(tmp_path):
    torch.save({"a.weight": torch.zeros(1).expand(200_000, 200_000)}, tmp_path / "claims.pt")
    assert (tmp_path / "claims.pt").stat().st_size < 3000
    with pytest.raises(
        TargetError, match=r"a\.weight is of shape \[200000, 200000\], 160,000,000,000 bytes, of which 4"
    ):
        load_target(str(tmp_path / "claims.pt"))


def test_many_views_of_a_few_stored_numbers_are_refused(tmp_path):
    stored = torch.randn(20_000)
    views = {f"{k}.weight": stored[k : k + 10_000].view(100, 100) for k in range(100)}
    torch.save(views, tmp_path / "views.pt")
    with pytest.raises(TargetError, match=r"have 4,000,000 bytes, of which 80,000 are stored"):
        load_target(str(tmp_path / "views.pt"))


def test_tied_weights_and_parts_of_one_tensor_are_no_claim(tmp_path):
    whole = torch.randn(12, 4)
    state = {f"{part}.weight": rows for part, rows in zip("qkv", whole.chunk(3), strict=True)}
    torch.save({**state, "whole.weight": whole, "tied.weight": whole}, tmp_path / "tied.pt")
    assert len(load_target(str(tmp_path / "tied.pt")).matrices) == 4


def test_a_packed_bomb_is_refused_before_it_is_unpacked(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.zeros(5000, 5000)}, buffer)
    with (
        zipfile.ZipFile(buffer) as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info.filename))
    with pytest.raises(DataError, match=r"bomb\.pt: [\d,]+ bytes that unpack to 100,0"):
        load_target(str(tmp_path / "bomb.pt"))


def test_a_dict_that_contains_itself_is_refused(tmp_path):
    content: dict = {}
    content["model"] = content
    torch.save(content, tmp_path / "itself.pt")
    with pytest.raises(TargetError, match="a dict in it contains itself"):
        load_target(str(tmp_path / "itself.pt"))


def test_keys_that_are_no_names_are_ignored(tmp_path):
    torch.save({7: torch.ones(2, 2), (1, 2): torch.ones(2, 2), "a.weight": torch.eye(2)}, tmp_path / "keys.pt")
    assert [matrix.name for matrix in load_target(str(tmp_path / "keys.pt")).matrices] == ["a"]
    torch.save({7: torch.ones(2, 2), (1, 2): torch.ones(2, 2)}, tmp_path / "keys.pt")
    with pytest.raises(TargetError, match="no state dict in it"):
        load_target(str(tmp_path / "keys.pt"))


def test_names_with_thousands_of_digits_are_sorted_as_numbers(tmp_path):
    digits = ["9" * 5000, "1" + "0" * 5000, "2", "10", "²"]
    save_file({f"{name}.weight": torch.eye(2) for name in digits}, tmp_path / "names.safetensors")
    found = [matrix.name for matrix in load_target(str(tmp_path / "names.safetensors")).matrices]
    assert found == ["2", "10", "9" * 5000, "1" + "0" * 5000, "²"]


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "encoder.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(DataError, match="a named pipe, not a regular file"):
        load_target(str(tmp_path / name))


def test_a_pipe_among_checkpoints_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "recipe.json").write_text("{}")
    os.mkfifo(tmp_path / "checkpoints" / "step00000001.pt")
    with pytest.raises(DataError, match="a named pipe, not a regular file"):
        load_target(str(tmp_path))


def test_a_path_that_is_too_long_is_no_file():
    with pytest.raises(TargetError, match="no such file or folder"):
        load_target("a" * 5000)


def test_names_in_a_file_write_nothing_of_their_own_to_the_terminal(tmp_path, capsys):
    names = ["\x1b[2J.weight", "[red]x[/red].weight", "[/].weight", "a\nlayer: healthy.weight", "$x_{$.weight"]
    state = {name: torch.eye(9) for name in names} | {"\x1b[31m_emb.weight": torch.eye(9)}
    state["\x1b[1mlow.weight"] = torch.diag(torch.tensor([1.0] + 8 * [1e-9]))
    torch.save(state, tmp_path / "names.pt")
    words = ["--plot", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json"), "--fail-on", "degrading"]
    assert main(["diagnose", str(tmp_path / "names.pt"), *words]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    for text in (r"\x1b[2J", "[red]x[/red]", "[/]", r"\x1b[1mlow: weight ", r"$x_{$"):
        assert text in shown
    assert not any(line.startswith("layer: healthy") for line in shown.splitlines())


def test_a_file_that_is_refused_is_refused_soon(tmp_path):
    torch.save({f"{k}.weight": torch.zeros(1).expand(3000, 3000) for k in range(40)}, tmp_path / "many.pt")
    began = time.monotonic()
    assert main(["diagnose", str(tmp_path / "many.pt")]) == 2
    assert time.monotonic() - began < 60
