import copy
import dataclasses
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from sslcollapse.layers.map import LayerError
from sslcollapse.rank import batch as batch_module
from sslcollapse.rank.monitor import CollapseMonitor, MonitorError
from sslcollapse.rank.spectrum import effective_rank_from_singular_values

sys.path.insert(0, str(Path(__file__).parent))
import monitor_workers


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 3))


def batch(seed=0, n=20):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def rank_of(matrix):
    return effective_rank_from_singular_values(torch.linalg.svdvals(matrix.detach().double()))


def outputs(rows):
    return {row.layer: row for row in rows if row.kind == "output"}


def train(model, steps=7, monitor=None):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        loss = model(batch(step)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [value.clone() for value in model.state_dict().values()] + [torch.get_rng_state()]


def test_outputs_of_every_kth_training_forward_are_measured_and_no_others():
    model = network()
    with CollapseMonitor(model, every=3) as monitor:
        for seed in range(7):
            model(batch(seed))
        model.eval()
        model(batch(99))
        rows = monitor.summary()
    assert (monitor.forwards, monitor.measured) == (7, 3)
    expected = torch.cat([model[0](batch(seed)) for seed in (0, 3, 6)])
    row = outputs(rows)["0"]
    assert row.effective_rank == pytest.approx(rank_of(expected), rel=1e-5)
    assert row.effective_rank_centred == pytest.approx(rank_of(expected - expected.mean(0)), rel=1e-5)
    assert (row.step, row.depth, row.n, row.attainable, row.attainable_centred) == (7, 0, 60, 8, 8)
    assert row.fraction == pytest.approx(row.effective_rank / 5)
    (weight,) = [row for row in rows if (row.layer, row.kind) == ("4", "weight")]
    assert weight.effective_rank == pytest.approx(rank_of(model[4].weight), rel=1e-6)
    assert (weight.n, weight.attainable, weight.effective_rank_centred) == (None, 3, None)
    torch.testing.assert_close(
        monitor.spectra["output/0"], torch.linalg.svdvals(expected.double()), rtol=1e-5, atol=1e-6
    )


def test_a_step_counts_as_one_forward_whatever_parts_of_the_network_it_calls():
    model = network()
    with CollapseMonitor(model, every=2) as monitor:
        for seed in range(3):
            with monitor.step():
                model[0](batch(seed))
                model(batch(seed + 10))
            model(batch(99))
        row = outputs(monitor.summary())["0"]
        assert (monitor.forwards, monitor.measured) == (3, 2)
        expected = torch.cat([model[0](batch(seed)) for seed in (0, 10, 2, 12)])
        assert row.effective_rank == pytest.approx(rank_of(expected), rel=1e-5)
        with monitor.observe():
            model(batch(5))
        assert outputs(monitor.summary())["0"].n == 20
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())


def test_training_is_bit_identical_with_and_without_a_monitor():
    alone = train(network())
    model = network()
    flags = [part.training for part in model.modules()]
    with CollapseMonitor(model, every=2) as monitor:
        watched = train(model)
        monitor.summary()
    assert monitor.measured == 4
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert [part.training for part in model.modules()] == flags


def test_the_network_has_no_trace_of_a_closed_monitor():
    model = network()
    before = {name: dict(vars(part)) for name, part in model.named_modules()}
    hooks = {name: len(part._forward_hooks) + len(part._forward_pre_hooks) for name, part in model.named_modules()}
    monitor = CollapseMonitor(model)
    model(batch())
    monitor.close()
    monitor.close()
    assert {name: set(vars(part)) for name, part in model.named_modules()} == {k: set(v) for k, v in before.items()}
    for name, part in model.named_modules():
        assert len(part._forward_hooks) + len(part._forward_pre_hooks) == hooks[name]
        assert not part._forward_hooks_always_called
    assert outputs(monitor.summary())["0"].n == 20


def test_hooks_are_gone_after_a_forward_that_raised():
    model = network()
    monitor = CollapseMonitor(model, every=1)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 7))
    assert not model[0]._forward_hooks
    model(batch())
    assert outputs(monitor.summary())["0"].n == 20


def test_each_summary_covers_the_forwards_since_the_one_before_and_history_has_all():
    model = network()
    monitor = CollapseMonitor(model, every=1)
    model(batch(0))
    first = monitor.summary(step=10)
    assert monitor.summary(step=10) == first
    model(batch(1))
    second = monitor.summary(step=20)
    assert outputs(second)["0"].effective_rank == pytest.approx(rank_of(model[0](batch(1))), rel=1e-5)
    assert monitor.history == first + second
    monitor.reset()
    assert monitor.history == []
    with pytest.raises(MonitorError, match="saw no forward pass"):
        monitor.summary()


def test_a_monitor_that_saw_nothing_says_so_and_eval_forwards_are_seen_on_request():
    model = network().eval()
    monitor = CollapseMonitor(model)
    model(batch())
    with pytest.raises(MonitorError, match=r"Forward passes in eval mode are seen within monitor\.observe"):
        monitor.summary()
    with monitor.observe(), torch.inference_mode():
        model(batch())
        model(batch(1))
    with monitor.observe(), torch.no_grad():
        model(batch(2))
    assert outputs(monitor.summary())["4"].n == 60
    assert monitor.forwards == 0


class Reused(nn.Module):
    """One Linear applied twice, a tied one, a convolution, tokens, attention, and a fused query-key-value map."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 1)
        self.twice = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.twice.weight
        self.qkv = nn.Linear(4, 12)
        self.fused_maps = {"qkv": {"q": 4, "k": 4, "v": 4}}
        self.line = nn.Conv1d(4, 5, 1)
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)  # [B, T, 4]
        tokens = self.tied(self.twice(self.twice(tokens)))
        self.qkv(tokens)
        self.attention(tokens, tokens, tokens)
        return self.line(tokens.transpose(1, 2))


def test_pixels_and_tokens_are_rows_calls_add_up_and_parts_of_a_fused_map_are_separate():
    model, x = Reused(), torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    monitor = CollapseMonitor(model)
    model(x)
    rows = outputs(monitor.summary())
    assert {name: row.n for name, row in rows.items()} == {
        "conv": 120,
        "twice": 240,
        "qkv.q": 120,
        "qkv.k": 120,
        "qkv.v": 120,
        "line": 120,
    }
    conv = model.conv(x).permute(0, 2, 3, 1).reshape(-1, 4)
    once = model.twice(conv)
    second = model.twice(once)
    tokens = model.tied(second)
    expected = {
        "conv": conv,
        "twice": torch.cat([once, second]),
        "qkv.k": model.qkv(tokens)[:, 4:8],
        "line": model.line(tokens.view(6, 20, 4).transpose(1, 2)).transpose(1, 2).reshape(-1, 5),
    }
    for name, matrix in expected.items():
        assert rows[name].effective_rank == pytest.approx(rank_of(matrix), rel=1e-4), name


def test_at_most_so_many_rows_of_an_output_are_taken_evenly_spaced():
    model = nn.Sequential(nn.Linear(5, 4))
    monitor = CollapseMonitor(model, max_rows=3)
    model(batch(n=21))
    row = outputs(monitor.summary())["0"]
    assert row.n == 3
    assert row.effective_rank == pytest.approx(rank_of(model[0](batch(n=21))[[0, 10, 20]]), rel=1e-5)


def test_under_autocast_half_precision_outputs_are_accumulated_in_float64():
    model = network()
    monitor = CollapseMonitor(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(batch())
        expected = model[0](batch())
    assert expected.dtype == torch.bfloat16
    assert outputs(monitor.summary())["0"].effective_rank == pytest.approx(rank_of(expected), rel=1e-5)


@pytest.mark.parametrize("order", ["compiled", "monitor first", "in place", "in place, used before", "part"])
def test_outputs_are_measured_under_compile(order):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    compiled = torch.compile(model, backend="eager") if order in ("compiled", "monitor first") else model
    if order == "part":
        compiled = nn.Sequential(torch.compile(model, backend="eager"))
        compiled(batch())
    if order.startswith("in place"):
        model.compile(backend="eager")
    if order in ("compiled", "in place, used before"):
        compiled(batch())
    monitor = CollapseMonitor(model if order == "monitor first" else compiled, every=2)
    for seed in range(4):
        compiled(batch(seed)).sum().backward()
    last = "0.2" if order == "part" else "2"
    row = outputs(monitor.summary())[last]
    assert (monitor.forwards, monitor.measured, row.n) == (4, 2, 40)
    expected = torch.cat([model(batch(0)), model(batch(2))])
    assert row.effective_rank == pytest.approx(rank_of(expected), rel=1e-5)
    monitor.close()
    torch.testing.assert_close(compiled(batch()), model(batch()))
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_a_compiled_network_that_cannot_be_seen_is_told_about():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(5, 8))
    compiled = torch.compile(model, backend="eager")
    compiled(batch())
    monitor = CollapseMonitor(model)
    compiled(batch())
    with pytest.raises(MonitorError, match="to the compiled network if it ran before the monitor was attached"):
        monitor.summary()


def test_two_processes_have_the_ranks_of_all_rows_bit_equal_training_and_stop_at_the_same_summary(tmp_path):
    mp.spawn(monitor_workers.monitored, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    model = monitor_workers.network()
    expected = rank_of(model[0](monitor_workers.rows()))
    for result in results:
        assert result["together"] == [
            ("0", 12, pytest.approx(expected, rel=1e-5)),
            ("1", 12, pytest.approx(result["together"][1][2])),
        ]
        assert result["own_n"] == 6
        torch.testing.assert_close(result["gradient"], results[0]["gradient"])
        torch.testing.assert_close(result["gradient"], result["unwatched"], rtol=0, atol=0)
        step, reason = result["stopped"]
        assert step == 2
        assert "the weight of 1 has collapsed" in reason
        assert "every rank calls summary(all_reduce=True)" in result["refused"]
    assert (tmp_path / "stop/collapse.json").exists()
    assert results[0]["own"] != results[1]["own"]
    assert results[0]["together"] == results[1]["together"]


def test_copies_and_pickles_of_a_watched_network_are_not_watched():
    model = network()
    monitor = CollapseMonitor(model, every=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(batch())
    assert monitor.forwards == 0
    model(batch())
    assert monitor.forwards == 1


def test_power_iteration_of_spectral_norm_is_not_moved_by_a_summary():
    model = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)))
    monitor = CollapseMonitor(model)
    model(batch())
    before = copy.deepcopy(model.state_dict())
    monitor.summary()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_that_overflowed_has_nan_and_the_others_their_ranks():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    monitor = CollapseMonitor(model)
    with torch.no_grad():
        model[1].bias.fill_(torch.inf)
    model(batch())
    rows = outputs(monitor.summary())
    assert rows["0"].effective_rank > 1
    assert rows["1"].effective_rank != rows["1"].effective_rank
    assert rows["1"].effective_rank_centred != rows["1"].effective_rank_centred


def test_a_collapsed_layer_stands_out_by_its_fraction():
    model = network()
    with torch.no_grad():
        model[4].weight.copy_(torch.ones(3, 8))
        model[4].bias.zero_()
    monitor = CollapseMonitor(model)
    model(batch())
    rows = outputs(monitor.summary())
    assert rows["4"].fraction == pytest.approx(1 / 3, rel=1e-3)
    assert rows["0"].fraction > 0.8


def test_the_history_is_a_data_frame_with_a_column_an_attribute_and_without_pandas_an_error(monkeypatch):
    pandas = pytest.importorskip("pandas")
    model = network()
    monitor = CollapseMonitor(model, layers="4", every=1)
    model(batch())
    frame = monitor.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["kind"]) == ["weight", "output"]
    assert list(frame.columns) == [field.name for field in dataclasses.fields(monitor.history[0])]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas, which is not installed: pip install pandas"):
        monitor.to_pandas()


def test_the_picture_has_ranks_by_depth_over_time_and_the_fan_and_leaves_pyplot_alone(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: drawn.append(figure))
    model = network()
    monitor = CollapseMonitor(model, every=1)
    for seed in range(3):
        model(batch(seed))
        monitor.summary()
    monitor.plot(tmp_path / "ranks.png")
    by_depth, over_time, fan = drawn[0].axes[:3]
    assert [len(line.get_xdata()) for line in over_time.lines[:2]] == [3, 3]
    assert len(fan.lines) == 5  # two weights, two outputs, and the mark where the attainable rank ends
    rows = [row for row in monitor.history if row.step == 3 and row.kind == "output"]
    assert [row.fraction for row in rows] in [list(line.get_ydata()) for line in by_depth.lines]
    monkeypatch.undo()
    monitor.plot(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 10_000


def test_layers_are_summarised_in_order_on_one_thread_each_and_the_others_are_given_back(monkeypatch):
    seen = []
    solve = batch_module.from_gram
    monkeypatch.setattr(batch_module, "from_gram", lambda gram: seen.append(torch.get_num_threads()) or solve(gram))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = network()
        monitor = CollapseMonitor(model)
        model(batch())
        rows = monitor.summary()
        assert (seen, torch.get_num_threads()) == ([1] * 6, 3)  # two weights, two outputs, these centred
    finally:
        torch.set_num_threads(before)
    assert [(row.layer, row.kind) for row in rows] == [(name, kind) for name in "04" for kind in ("weight", "output")]
    assert list(monitor.spectra) == ["weight/0", "output/0", "weight/4", "output/4"]
    assert not any(sigma.requires_grad for sigma in monitor.spectra.values())


def test_wrong_arguments_are_refused_with_the_value():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        CollapseMonitor(network(), every=0)
    with pytest.raises(ValueError, match="max_rows must be at least 1, got -3"):
        CollapseMonitor(network(), max_rows=-3)
    with pytest.raises(LayerError, match=r"'conv\*' matches no layer.*\(layers: 0, 4\)"):
        CollapseMonitor(network(), "conv*")
    with pytest.raises(MonitorError, match="use DistributedDataParallel"):
        CollapseMonitor(nn.DataParallel(network()))
