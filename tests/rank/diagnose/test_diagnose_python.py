"""``sslcollapse.diagnose``: networks in memory, in wrappers, with adapters; its forms, comparisons and series."""

import copy
import csv
import json
import sys

import pytest
import torch
from torch import nn

import sslcollapse
from sslcollapse.cli import main
from sslcollapse.rank.diagnose.compare import change_of
from sslcollapse.rank.diagnose.diagnosis import DiagnosisError
from sslcollapse.rank.diagnose.series import recorded_falls, steps_of
from sslcollapse.rank.diagnose.state_dict import TargetError


def low_rank(rank: int, out: int = 40, columns: int = 40) -> torch.Tensor:
    return torch.randn(out, rank) @ torch.randn(rank, columns)


@pytest.fixture
def network() -> nn.Sequential:
    """A healthy layer, and one of rank 2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 40))
    with torch.no_grad():
        model[3].weight.copy_(low_rank(2))
    return model


def test_a_network_in_memory_is_judged_in_one_call_and_names_its_worst_layer(network):
    found = sslcollapse.diagnose(network)
    assert isinstance(found, sslcollapse.Diagnosis)
    assert [(row.layer, row.part, row.verdict) for row in found.rows] == [
        ("0", "weight", "healthy"),
        ("3", "weight", "collapsed"),
    ]
    assert found.worst().layer == "3"
    assert found.verdict == "collapsed"


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))],
    ids=["data parallel", "data parallel of compiled"],
)
def test_a_wrapper_leaves_no_trace_in_names_and_numbers(network, wrap):
    plain, wrapped = sslcollapse.diagnose(network), sslcollapse.diagnose(wrap(network))
    assert plain.rows == wrapped.rows


def test_a_state_dict_and_its_file_give_the_rows_of_the_network(network, tmp_path):
    torch.save({"model": network.state_dict()}, tmp_path / "m.pt")
    expected = sslcollapse.diagnose(network).rows
    assert sslcollapse.diagnose(network.state_dict()).rows == expected
    assert sslcollapse.diagnose(tmp_path / "m.pt").rows == expected


def test_outputs_of_given_inputs_are_those_that_the_layers_put_out(network):
    x = torch.randn(64, 40)
    found = sslcollapse.diagnose(network, data=x)
    network.eval()
    expected = sslcollapse.effective_rank(network(x))
    rows = {(row.layer, row.part): row for row in found.rows}
    assert rows["3", "output"].effective_rank == pytest.approx(expected, rel=1e-4)
    assert rows["representation", "representation"].n == 64
    batches = sslcollapse.diagnose(network, data=[(x[:40], torch.zeros(40)), (x[40:], torch.zeros(24))])
    assert batches.rows[-1].effective_rank == pytest.approx(expected, rel=1e-4)


def test_inputs_that_are_given_by_name_reach_the_network():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(30, 30)

        def forward(self, values, scale=1.0):
            return self.map(values) * scale

    found = sslcollapse.diagnose(ByName(), data={"values": torch.randn(50, 30), "scale": 2.0})
    assert [(row.layer, row.part) for row in found.rows][:2] == [("map", "weight"), ("map", "output")]


def test_the_network_is_left_as_it_was(network):
    before = copy.deepcopy(network.state_dict())
    network.train()
    sslcollapse.diagnose(network, data=torch.randn(64, 40))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_good_encoder_that_drops_noise_of_its_inputs_is_healthy():
    """98 % right or more, with less rank than an untrained network, which passes noise on."""
    torch.manual_seed(0)
    centres = torch.randn(24, 16) @ torch.randn(16, 64) / 2  # what tells classes apart has 16 dimensions
    labels = torch.arange(960) % 24
    x = centres[labels] + torch.randn(960, 64)
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        (encoder(x) - centres[labels]).square().mean().backward()
        optimizer.step()
    assert (torch.cdist(encoder(x), centres).argmin(1) == labels).float().mean() > 0.98
    found = sslcollapse.diagnose(encoder, data=x)
    assert found.representation.share < 0.5
    assert found.verdict == "healthy"


def test_the_forms_of_a_diagnosis_agree(network, tmp_path):
    found = sslcollapse.diagnose(network, columns=["spikes"])
    found.to_csv(tmp_path / "a.csv")
    found.to_json(tmp_path / "a.json")
    found.to_html(tmp_path / "a.html")
    found.plot(tmp_path / "a.png")
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
    record = json.loads((tmp_path / "a.json").read_text())
    frame = found.to_pandas()
    for k, row in enumerate(found.rows):
        assert float(rows[k]["effective_rank"]) == row.effective_rank == frame["effective_rank"][k]
        assert record["layers"][k]["weight"]["effective_rank"] == row.effective_rank
        assert float(rows[k]["spikes"]) == row.columns["spikes"]
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.index("Which layers") < page.index("Since when") < page.index("What to try")
    assert 'href="plots/' not in page
    assert "<svg" in page
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "3: weight collapsed" in str(found)
    assert found.plot().axes


def test_without_pandas_a_sentence_says_what_has_the_same(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DiagnosisError, match=r"needs pandas, .*pip install pandas; \.rows has the same"):
        sslcollapse.diagnose(network).to_pandas()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(target=3), "cannot diagnose a int"),
        (dict(target=nn.ReLU()), "a ReLU in memory: no weight matrices in this network"),
        (dict(target={"a.weight": torch.eye(3)}, data=torch.ones(2, 3)), "tensors without an architecture"),
        (dict(target=nn.Linear(3, 3), data=[]), "there is no batch in it"),
        (dict(target=nn.Linear(3, 3), data=[3]), "batch 0 is a int without a tensor"),
        (dict(target=nn.Linear(3, 3), columns=["alhpa"]), "no column 'alhpa'; did you mean 'alpha'"),
        (dict(target=[]), "at least one target"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_with_a_reason(given, message):
    with pytest.raises(sslcollapse.SSLCollapseError, match=message):
        sslcollapse.diagnose(**given)


def adapted(b: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "base_model.model.q_proj.base_layer.weight": torch.randn(40, 40),
        "base_model.model.q_proj.lora_A.default.weight": torch.randn(4, 40),
        "base_model.model.q_proj.lora_B.default.weight": b,
    }


def test_a_fresh_adapter_is_no_change_and_has_not_collapsed():
    torch.manual_seed(0)
    found = sslcollapse.diagnose(adapted(torch.zeros(40, 4)))
    rows = {row.layer: row for row in found.rows}
    assert rows["q_proj.lora.default"].reason == "an adapter: no change"
    assert "no change: q_proj.lora.default: B·A is zero" in str(found)
    assert found.verdict == "healthy"
    assert rows["q_proj"].shape == (40, 40)


def test_an_adapter_is_held_against_the_rank_that_it_has_and_not_that_of_its_weight():
    torch.manual_seed(0)
    rows = {row.layer: row for row in sslcollapse.diagnose(adapted(torch.randn(40, 4))).rows}
    assert (rows["q_proj.lora.default"].attainable, rows["q_proj.lora.default"].verdict) == (4, "healthy")
    assert rows["q_proj.lora.default"].share == pytest.approx(1, abs=0.1)


def test_a_folder_with_an_adapter_is_compared_with_its_base_by_the_scaled_product(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    base, a, b = torch.randn(40, 40), torch.randn(4, 40), torch.randn(40, 4)
    for folder in ("base", "adapter"):
        (tmp_path / folder).mkdir()
    save_file({"model.q_proj.weight": base}, tmp_path / "base/model.safetensors")
    names = {"base_model.model.model.q_proj.lora_A.weight": a, "base_model.model.model.q_proj.lora_B.weight": b}
    save_file(names, tmp_path / "adapter/adapter_model.safetensors")
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4}))
    (change,) = sslcollapse.diagnose(tmp_path / "adapter", against=tmp_path / "base").changes
    assert change.change == pytest.approx(float((2 * b @ a).norm() / base.norm()), rel=1e-5)
    assert change.rank_of_change == pytest.approx(sslcollapse.effective_rank(b @ a), rel=1e-5)
    assert change.rank_after == pytest.approx(sslcollapse.effective_rank(base + 2 * b @ a), rel=1e-5)
    with pytest.raises(sslcollapse.SSLCollapseError, match="the base comes first, then the adapter"):
        sslcollapse.diagnose(tmp_path / "base", against=tmp_path / "adapter")


def test_a_comparison_names_the_most_changed_layer_first_and_its_intruder(network):
    torch.manual_seed(1)
    tuned = copy.deepcopy(network)
    u, v = (nn.functional.normalize(torch.randn(40), dim=0) for _ in range(2))
    with torch.no_grad():
        tuned[0].weight.add_(20 * torch.outer(u, v))
    found = sslcollapse.diagnose(tuned, against=network)
    first, second = found.changes
    assert (first.layer, first.intruders) == ("0", 1)
    assert first.rank_of_change == pytest.approx(1, rel=1e-6)
    assert first.change == pytest.approx(20 / float(network[0].weight.detach().norm()), rel=1e-5)
    assert first.largest_angle > 45
    assert (second.change, second.intruders, second.largest_angle) == (0, 0, 0)
    assert "against a Sequential in memory" in str(found)


def test_principal_angles_are_those_of_a_rotation_in_a_plane():
    angle = torch.tensor(0.3)
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = -angle.sin(), angle.sin()
    before = torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0]))
    change = change_of("w", before, turn @ before)
    assert change.angles == pytest.approx((0, float(angle.rad2deg())), abs=1e-4)


def test_networks_under_another_name_are_matched_and_what_has_no_partner_is_listed():
    torch.manual_seed(0)
    base = nn.ModuleDict({"backbone": nn.ModuleDict({"a": nn.Linear(9, 9), "b": nn.Linear(9, 9)})})
    tuned = nn.ModuleDict({"a": nn.Linear(9, 9), "b": nn.Linear(9, 5)})
    tuned["a"].load_state_dict(base["backbone"]["a"].state_dict())
    found = sslcollapse.diagnose(tuned, against=base)
    assert [(change.layer, change.change) for change in found.changes] == [("a", 0.0)]
    assert list(found.unmatched) == ["b: [9, 9] became [5, 9]"]
    with pytest.raises(TargetError, match="have no layer of one name and shape: a"):
        sslcollapse.diagnose(tuned, against=nn.Sequential(nn.Linear(9, 9)))


def falling() -> list[dict[str, torch.Tensor]]:
    """Four checkpoints of three layers: b falls at the second, c at the third and comes back, a at the last."""
    torch.manual_seed(0)
    ranks = {"a": (40, 40, 40, 12), "b": (40, 9, 5, 2), "c": (40, 40, 8, 40)}
    return [{f"{name}.weight": low_rank(course[k]) for name, course in ranks.items()} for k in range(4)]


def test_a_series_names_the_first_layer_to_fall_and_when(tmp_path, capsys):
    paths = []
    for k, state in enumerate(falling()):
        paths.append(tmp_path / f"step{100 * k:08d}.pt")
        torch.save(state, paths[-1])
    series = sslcollapse.diagnose(paths[::-1])
    assert [(fall.layer, fall.step, fall.healthy_step) for fall in series.falls] == [("b", 100, 0), ("a", 300, 200)]
    words = [str(path) for path in paths] + ["--html", str(tmp_path / "s.html"), "--csv", str(tmp_path / "s.csv")]
    assert main(["diagnose", *words, "--plot", str(tmp_path / "s.png"), "--json", str(tmp_path / "s.json")]) == 1
    shown = capsys.readouterr().out
    assert "first to fall: b weight: last healthy at step 0, " in shown
    assert "first to fall" not in shown[shown.index("then: a weight") :]
    assert json.loads((tmp_path / "s.json").read_text())["falls"][0]["layer"] == "b"
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 1 + 4 * 3
    assert "Which layer first, and when" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_two_targets_are_compared_and_with_series_followed(tmp_path, capsys):
    for name, state in zip("ab", falling(), strict=False):
        torch.save(state, tmp_path / f"{name}.pt")
    words = [str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "--fail-on", "never"]
    assert main(["diagnose", *words]) == 0
    assert "‖B−A‖/‖A‖" in capsys.readouterr().out
    assert main(["diagnose", *words, "--series"]) == 0
    assert "first to fall: b weight" in capsys.readouterr().out


def test_steps_are_the_numbers_of_names_and_else_their_order():
    assert steps_of(["step00000400.pt", "step00001000.pt"]) == [400, 1000]
    assert steps_of(["run1/step9/model.pt", "run1/step12/model.pt"]) == [9, 12]
    assert steps_of(["base.pt", "tuned.pt", "x1.pt", "y1.pt"]) == [0, 1, 2, 3]


def test_a_run_says_since_when_by_what_it_has_recorded(network, tmp_path):
    found = sslcollapse.diagnose(network)
    course = {0: (33.0, 30.0), 100: (8.0, 29.0), 200: (2.0, 5.0)}
    lines = [
        {"step": step, "rank/layers/3/weight/effective_rank": w, "rank/layers/3/output/effective_rank": o}
        for step, (w, o) in course.items()
    ]
    lines.append({"step": 200, "loss": 0.1})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3')
    falls = recorded_falls(tmp_path / "metrics.jsonl", found)
    assert [(fall.part, fall.step, fall.healthy_step, fall.verdict) for fall in falls] == [
        ("weight", 100, 0, "collapsed"),
        ("output", 200, 100, "degrading"),
    ]
    assert str(falls[0]).startswith("3 weight: last healthy at step 0, 0.25 of its reference at step 100")
    assert recorded_falls(tmp_path / "nothing.jsonl", found) is None


def test_a_collapsed_network_is_told_since_when_and_what_to_try_and_a_healthy_one_is_not(network):
    shown = str(sslcollapse.diagnose(network))
    assert shown.index("3: weight collapsed") < shown.index("since when: ") < shown.index("what to try: ")
    healthy = str(sslcollapse.diagnose(network[0]))
    assert "since when" not in healthy
    assert "what to try" not in healthy
