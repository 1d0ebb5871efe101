import json
import math
import subprocess
import sys

import pytest
import torch
from boxes import layout
from torch import nn

from sslcollapse.cli import main
from sslcollapse.core.types import Point
from sslcollapse.layers.layer import Coverage
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, LayerReport, diagnose_weights
from sslcollapse.rank.diagnose.matrices import Matrix
from sslcollapse.rank.diagnose.networks import Target
from sslcollapse.rank.diagnose.outputs import with_statistics
from sslcollapse.rank.diagnose.picture import draw
from sslcollapse.rank.diagnose.verdicts import Judged, weigh
from sslcollapse.rank.record import rank_of


def of_rank(rank: int, size: int = 40) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(size, rank) @ torch.randn(rank, size)


@pytest.fixture
def collapsed(tmp_path) -> str:
    path = tmp_path / "collapsed.pt"
    torch.save({"a.weight": of_rank(40), "b.weight": of_rank(15), "c.weight": of_rank(2)}, path)
    return str(path)


@pytest.fixture
def healthy(tmp_path) -> str:
    path = tmp_path / "healthy.pt"
    torch.save({"a.weight": torch.eye(20), "b.weight": torch.randn(20, 20)}, path)
    return str(path)


def test_the_numbers_of_a_matrix_are_those_of_its_svd():
    torch.manual_seed(1)
    weight = torch.randn(12, 30)
    report = weigh(Matrix("w", 0, weight))
    sigma = torch.linalg.svdvals(weight.double())
    p = sigma / sigma.sum()
    assert report.rank.effective_rank == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-6)
    assert report.rank.stable_rank == pytest.approx(float((sigma / sigma[0]).square().sum()), rel=1e-6)
    assert report.condition == pytest.approx(float(sigma[0] / sigma[-1]), rel=1e-6)
    defect = torch.linalg.norm(weight.double() @ weight.double().T - torch.eye(12))
    assert report.orthogonality_defect == pytest.approx(float(defect), rel=1e-6)


def test_the_defect_of_a_tall_matrix_is_of_its_smaller_gram():
    orthogonal = torch.linalg.qr(torch.randn(30, 12, dtype=torch.float64)).Q
    assert weigh(Matrix("w", 0, orthogonal)).orthogonality_defect == pytest.approx(0, abs=1e-10)


def test_a_singular_matrix_has_no_condition_number():
    assert weigh(Matrix("w", 0, of_rank(3))).condition is None
    assert weigh(Matrix("w", 0, torch.zeros(4, 4))).condition is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_entries_that_are_not_finite_are_a_collapse_and_counted(value):
    weight = torch.randn(4, 5)
    weight[0, :2] = value
    report = weigh(Matrix("w", 0, weight))
    assert report.verdict == "collapsed"
    assert report.reason == "2 of 20 entries are NaN or infinite"
    assert not report.rank.finite


def test_a_zero_matrix_has_collapsed():
    report = weigh(Matrix("w", 0, torch.zeros(4, 5)))
    assert (report.verdict, report.reason) == ("collapsed", "all entries are zero")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_floating_type_are_measured(dtype):
    expected = weigh(Matrix("w", 0, of_rank(9))).rank.effective_rank
    assert weigh(Matrix("w", 0, of_rank(9).to(dtype))).rank.effective_rank == pytest.approx(expected, rel=0.15)


def test_low_rank_layers_are_named_with_their_share(collapsed, capsys):
    assert main(["diagnose", collapsed]) == 1
    shown = capsys.readouterr().out
    assert "b: weight degrading: effective rank 1" in shown
    assert "c: weight collapsed: effective rank 2.0 of 40, 0.06 of a random matrix's" in shown
    assert "3 layers: 1 healthy, 1 degrading, 1 collapsed" in shown


@pytest.mark.parametrize(("fail_on", "code"), [("collapsed", 0), ("degrading", 1), ("never", 0)])
def test_the_exit_code_says_whether_the_worst_verdict_is_bad_enough(tmp_path, fail_on, code):
    torch.save({"a.weight": of_rank(15)}, tmp_path / "degrading.pt")
    assert main(["diagnose", str(tmp_path / "degrading.pt"), "--fail-on", fail_on]) == code


def test_a_healthy_network_exits_0_whatever_fails(healthy):
    assert main(["diagnose", healthy, "--fail-on", "degrading"]) == 0


def test_never_exits_0_for_a_collapsed_network(collapsed):
    assert main(["diagnose", collapsed, "--fail-on", "never"]) == 0


def test_the_json_is_strict_and_has_verdicts_thresholds_and_every_layer(tmp_path):
    torch.save({"a.weight": torch.full((3, 3), math.nan), "b.weight": torch.zeros(3, 3)}, tmp_path / "m.pt")
    main(["diagnose", str(tmp_path / "m.pt"), "--json", str(tmp_path / "m.json")])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)
    assert report["verdict"] == "collapsed"
    assert report["counts"] == {"healthy": 0, "degrading": 0, "collapsed": 2}
    assert report["thresholds"]["collapsed_below"] == 0.1
    assert [layer["name"] for layer in report["layers"]] == ["a", "b"]


def test_the_picture_is_drawn_for_any_mixture_of_layers(tmp_path, collapsed):
    main(["diagnose", collapsed, "--plot", str(tmp_path / "fan.png")])
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")
    state = {"a.weight": torch.full((3, 3), math.nan), "b.weight": torch.zeros(3, 3), "c.weight": torch.ones(1, 1)}
    torch.save(state, tmp_path / "m.pt")
    main(["diagnose", str(tmp_path / "m.pt"), "--plot", str(tmp_path / "odd.svg")])
    assert "<svg" in (tmp_path / "odd.svg").read_text()


@pytest.fixture
def drawn(monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures


def widening() -> Diagnosis:
    """A layer from 4 dimensions to 16, then one that keeps them, with outputs; names that are long."""
    torch.manual_seed(0)
    maps = [torch.randn(16, 4), torch.randn(16, 16), torch.zeros(16, 16) + torch.randn(16)]
    x, layers = torch.randn(100, 4), []
    for depth, weight in enumerate(maps):
        x = x @ weight.T
        name = f"backbone.a_$module_with_$a_long_name.and_another_one.layers.{depth}"
        rows = torch.linalg.svdvals(x.double())
        rank, sigma = rank_of(Point("output", name), (16, 4), lambda rows=rows: rows, n=100, depth=depth)
        output = Judged(rank, 4.0, "healthy", "", sigma.numpy())
        layers.append(LayerReport(weigh(Matrix(name, depth, weight)), output))
    return Diagnosis("$a_path$/" * 60, layers, Coverage(0, 0), representation=layers[-1].output)


def test_outputs_of_a_layer_that_widens_are_drawn_against_what_it_can_attain_with_a_mark_at_its_end(drawn, tmp_path):
    draw(widening(), tmp_path / "x.png")
    for axes in drawn[0].axes[0], drawn[0].axes[2]:
        *lines, mark = axes.lines
        assert (list(mark.get_xdata()), mark.get_linestyle()) == ([1, 1], "--")
        assert {float(line.get_xdata()[-1]) for line in lines} == {1.0}
        assert axes.get_xlabel() == "k / attainable rank"
    assert len(drawn[0].axes[2].lines[0].get_xdata()) == 4  # of 16 singular values


def test_a_colour_is_one_depth_in_both_fans_of_a_diagnosis(drawn, tmp_path):
    draw(widening(), tmp_path / "x.png")
    first, second = ([line.get_color() for line in drawn[0].axes[k].lines[:3]] for k in (0, 2))
    assert first == second
    assert len(set(first)) == 3


def test_long_names_and_titles_leave_a_diagnosis_its_place(drawn, tmp_path):
    draw(widening(), tmp_path / "x.png")
    found = layout(drawn[0])
    assert (found.width > 0.35, found.height > 0.35) == (True, True)  # of two panels each way
    assert found.outside == found.overlapping == []


@pytest.mark.parametrize(
    "words", [["--json", "no/folder/x.json"], ["--plot", "no/folder/x.png"], ["--plot", "x.nonsense"]]
)
def test_a_file_that_cannot_be_written_is_named(healthy, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", healthy, *words]) == 2
    assert f"{words[1]}: cannot be written" in capsys.readouterr().err


def test_brackets_in_names_are_shown_as_they_are(capsys, tmp_path):
    torch.save({"a[red].weight": torch.eye(3)}, tmp_path / "[bold]m.pt")
    main(["diagnose", str(tmp_path / "[bold]m.pt")])
    shown = capsys.readouterr().out
    assert "a[red]" in shown
    assert "[bold]m.pt" in shown


def test_the_reference_network_normalises_by_the_data_and_not_by_its_initial_statistics():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    views = [5 + 3 * torch.randn(50, 4), 5 + 3 * torch.randn(50, 4), torch.full((1, 4), 1e6)]
    network = with_statistics(nn.Sequential(norm, nn.Dropout()), views)
    torch.testing.assert_close(norm.running_mean, (views[0].mean(0) + views[1].mean(0)) / 2)
    torch.testing.assert_close(norm.running_var, (views[0].var(0) + views[1].var(0)) / 2)
    assert not any(module.training for module in network.modules())


def test_network_targets_and_tensors_are_judged_alike():
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    diagnosis = diagnose_weights(Target("x", [Matrix("a", 0, layer.weight)], Coverage(36, 36)))
    assert diagnosis.verdict == "healthy"
    assert diagnosis.count("healthy") == 1


def test_diagnosing_leaves_the_number_of_threads_and_keeps_the_order_of_layers():
    before = torch.get_num_threads()
    matrices = [Matrix(str(k), k, torch.eye(k + 1)) for k in range(20)]
    layers = diagnose_weights(Target("x", matrices, Coverage(2870, 2870))).layers
    assert [(layer.name, layer.weight.rank.attainable) for layer in layers] == [(str(k), k + 1) for k in range(20)]
    assert torch.get_num_threads() == before


def test_help_does_not_import_torch():
    lines = [
        "import sys",
        "from sslcollapse.cli import main",
        "try: main(['diagnose', '--help'])",
        "except SystemExit: pass",
        "print('torch' in sys.modules)",
    ]
    process = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert process.stdout.strip().endswith("False")
