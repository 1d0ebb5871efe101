"""What a diagnosis makes of odd tensors, folders and series: an answer, or an error that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslcollapse.rank.diagnose.compare import change_of
from sslcollapse.rank.diagnose.entry import diagnose
from sslcollapse.rank.diagnose.series import recorded_falls
from sslcollapse.rank.diagnose.state_dict import TargetError


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _folder(path: Path, tensors: dict[str, Tensor], name: str = "model.safetensors", **files: Any) -> Path:
    path.mkdir()
    save_file(tensors, path / name)
    for file, content in files.items():
        (path / f"{file}.json").write_text(json.dumps(content))
    return path


def _strict(path: Path) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_weight_of_eight_bit_floats_is_measured_as_the_same_numbers_in_float64(
    kind: torch.dtype, tmp_path: Path
) -> None:
    weight = _random(16, 12).to(kind)
    expected = diagnose({"a.weight": weight.double()}, against={"a.weight": torch.eye(16, 12)})
    folder = _folder(tmp_path / "f", {"a.weight": weight})
    for target in ({"a.weight": weight}, folder):
        found = diagnose(target, against={"a.weight": torch.eye(16, 12)})
        assert found.rows[0].effective_rank == pytest.approx(expected.rows[0].effective_rank)
        assert found.changes[0].rank_of_change == pytest.approx(expected.changes[0].rank_of_change)


def test_parts_of_a_weight_in_several_types_are_put_together_in_the_widest() -> None:
    down, up = _random(2, 16), _random(16, 2, seed=1)
    mixed = {"a.lora_A.weight": down.bfloat16(), "a.lora_B.weight": up}
    wide = {"a.lora_A.weight": down.bfloat16().float(), "a.lora_B.weight": up}
    assert diagnose(mixed).rows[0].effective_rank == diagnose(wide).rows[0].effective_rank


@pytest.mark.parametrize(
    "parts",
    [
        {"c.lora_A.weight": torch.tensor(1.0), "c.lora_B.weight": torch.tensor(1.0)},
        {"c.weight_orig": torch.tensor(1.0), "c.weight_u": torch.tensor(1.0)},
        {"c.weight_g": torch.ones(4, 1, dtype=torch.int8), "c.weight_v": torch.ones(4, 4, dtype=torch.int8)},
        {"c.lora_A.weight": torch.ones(2, 4, dtype=torch.int8), "c.lora_B.weight": torch.ones(4, 2, dtype=torch.int8)},
    ],
    ids=["scalar adapter", "scalar spectral norm", "whole weight norm", "whole adapter"],
)
def test_parts_that_make_no_weight_are_named_and_the_rest_is_diagnosed(parts: dict[str, Tensor]) -> None:
    found = diagnose({**parts, "f.weight": _random(4, 4)})
    assert [row.layer for row in found.rows] == ["f"]
    assert any(part.name.startswith("c.") for part in found.coverage.uncovered)


def test_a_comparison_of_complex_weights_sees_the_imaginary_part() -> None:
    real = _random(8, 8)
    found = diagnose({"a.weight": real + 1j * _random(8, 8, seed=1)}, against={"a.weight": real.to(torch.complex64)})
    expected = torch.linalg.matrix_norm(_random(8, 8, seed=1)) / torch.linalg.matrix_norm(real)
    assert found.changes[0].change == pytest.approx(float(expected), rel=1e-5)


def test_a_direction_that_the_base_maps_to_zero_is_an_intruder() -> None:
    base = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0]))
    tuned = base + torch.diag(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    assert change_of("a", base, tuned).intruders == 1


def test_the_json_of_a_comparison_with_a_base_of_zeros_is_json(tmp_path: Path) -> None:
    zero, other = torch.zeros(8, 8), _random(8, 8)
    found = diagnose({"a.weight": zero, "b.weight": other}, against={"a.weight": zero.clone(), "b.weight": zero})
    found.to_json(tmp_path / "found.json")
    changes = {change["layer"]: change["change"] for change in _strict(tmp_path / "found.json")["against"]["changes"]}
    assert changes == {"a": 0.0, "b": None}


def test_the_json_of_weights_too_large_to_square_is_json(tmp_path: Path) -> None:
    diagnose({"a.weight": _random(8, 8).double() * 1e200}).to_json(tmp_path / "found.json")
    _strict(tmp_path / "found.json")


@pytest.mark.parametrize("entry", [None, "x"])
def test_a_dict_that_contains_itself_under_an_empty_name_is_refused(entry: str | None, tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content[""] = content
    torch.save(content, tmp_path / "self.pt")
    with pytest.raises(TargetError, match=r"contains itself|has no entry"):
        diagnose(tmp_path / "self.pt", entry=entry)


def test_a_network_without_values_is_refused() -> None:
    with pytest.raises(TargetError, match="meta device"):
        diagnose(nn.Linear(4, 4, device="meta"))


@pytest.mark.parametrize("samples", [0, -1])
def test_no_samples_are_refused(samples: int) -> None:
    with pytest.raises(TargetError, match=f"samples must be at least 1, got {samples}"):
        diagnose(nn.Linear(4, 4), data=_random(10, 4), samples=samples)


def test_data_without_rows_are_no_proof_of_health() -> None:
    with pytest.raises(TargetError, match="no rows"):
        diagnose(nn.Linear(4, 4), data=torch.zeros(0, 4))


@pytest.mark.parametrize("config", [{"architectures": 5}, {"architectures": [None, {}]}, {"model_type": ["x"]}, []])
def test_a_config_that_is_wrong_hides_no_weights(config: Any, tmp_path: Path) -> None:
    assert diagnose(_folder(tmp_path / "f", {"a.weight": _random(8, 8)}, config=config)).verdict == "healthy"


@pytest.mark.parametrize(
    "config",
    [{"lora_alpha": 2, "alpha_pattern": [1]}, {"lora_alpha": float("nan")}, {"lora_alpha": 10**400}],
    ids=["a list of patterns", "NaN", "a vast number"],
)
def test_an_adapter_config_that_is_wrong_is_no_error_and_no_collapse(config: Any, tmp_path: Path) -> None:
    adapter = {"a.lora_A.weight": _random(2, 8), "a.lora_B.weight": _random(8, 2)}
    found = diagnose(_folder(tmp_path / "f", adapter, "adapter_model.safetensors", adapter_config=config))
    assert found.verdict == "healthy"


def test_shards_without_an_index_are_counted(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "f", {"a.weight": _random(8, 8)}, "model-00001-of-00002.safetensors")
    with pytest.raises(TargetError, match="1 of 2 shards are there"):
        diagnose(folder)
    save_file({"b.weight": _random(8, 8)}, folder / "model-00002-of-00002.safetensors")
    assert [row.layer for row in diagnose(folder).rows] == ["a", "b"]


def test_an_index_with_an_endless_name_is_refused(tmp_path: Path) -> None:
    index = {"weight_map": {"a.weight": "x" * 300}}
    folder = _folder(tmp_path / "f", {"a.weight": _random(8, 8)}, **{"model.safetensors.index": index})
    with pytest.raises(TargetError, match="refused"):
        diagnose(folder)


def test_a_last_checkpoint_without_a_number_stays_the_last_of_a_series(tmp_path: Path) -> None:
    files = []
    for name, factor in (("step100.pt", 1), ("step200.pt", 1), ("final.pt", 0)):
        files.append(tmp_path / "run" / name)
        files[-1].parent.mkdir(exist_ok=True)
        torch.save({"a.weight": factor * _random(16, 16)}, files[-1])
    series = diagnose(files)
    assert (series.verdict, [fall.layer for fall in series.falls]) == ("collapsed", ["a"])


def test_damaged_records_of_a_run_are_passed_over_and_nan_is_a_fall(tmp_path: Path) -> None:
    key = "rank/layers/a/weight/effective_rank"
    lines = [f'{{"step": {step}, "{key}": {value}}}'.encode() for step, value in ((0, 6.0), (10, 6.0), (20, "NaN"))]
    damage = [b"\xff\xfe", b'{"step": "x", "' + key.encode() + b'": 1}', b"[1]", b'{"step": null}', b"[" * 100_000]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*damage, *lines]))
    falls = recorded_falls(tmp_path / "metrics.jsonl", diagnose({"a.weight": _random(8, 8)}))
    assert falls is not None
    assert [(fall.step, fall.healthy_step) for fall in falls] == [(20, 10)]
