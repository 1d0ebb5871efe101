import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

import sslcollapse
from sslcollapse.integrations.torchmetrics import EffectiveRank

KINDS = ["effective_rank", "rankme", "stable_rank", "participation_ratio"]


def features(n=60, d=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * 0.7 ** torch.arange(d) + 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_function_of_the_same_name_of_all_features(kind):
    metric = EffectiveRank(7, kind)
    metric.update(features())
    assert metric.compute().item() == pytest.approx(getattr(sslcollapse, kind)(features()), rel=1e-6)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["effective_rank", "stable_rank", "participation_ratio"])
def test_two_updates_are_one_and_centring_is_about_the_mean_of_both(kind, centred):
    metric = EffectiveRank(7, kind, centred=centred)
    metric.update(features()[:13])
    metric.update(features()[13:])
    expected = getattr(sslcollapse, kind)(features(), centred=centred)
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)
    assert metric.count == 60


def test_more_rows_than_a_chunk_all_count():
    metric = EffectiveRank(3)
    metric.update(features(5000, 3))
    assert metric.compute().item() == pytest.approx(sslcollapse.effective_rank(features(5000, 3)), rel=1e-6)


def test_reset_forgets_and_a_forward_gives_the_batchs_own_rank():
    metric = EffectiveRank(7)
    metric.update(10 * features(seed=1))
    assert metric(features()).item() == pytest.approx(sslcollapse.effective_rank(features()), rel=1e-6)
    both = torch.cat([10 * features(seed=1), features()])
    assert metric.compute().item() == pytest.approx(sslcollapse.effective_rank(both), rel=1e-6)
    metric.reset()
    metric.update(features())
    assert metric.compute().item() == pytest.approx(sslcollapse.effective_rank(features()), rel=1e-6)


def test_processes_are_merged_by_adding():
    one, other = EffectiveRank(7, centred=True), EffectiveRank(7, centred=True)
    one.update(features()[:25])
    other.update(features()[25:])
    gathered = {name: torch.stack([getattr(one, name), getattr(other, name)]) for name in one._reductions}
    merged = EffectiveRank(7, centred=True)
    for name, reduce in one._reductions.items():
        setattr(merged, name, reduce(gathered[name]))
    merged._update_count = 1
    assert merged.compute().item() == pytest.approx(sslcollapse.effective_rank(features(), centred=True), rel=1e-6)


def test_states_stay_in_float64_in_a_half_precision_module_and_add_nothing_to_its_state_dict():
    module = nn.ModuleDict({"layer": nn.Linear(7, 7), "rank": EffectiveRank(7)}).half()
    z = features().half()
    with torch.autocast("cpu", torch.bfloat16):
        module["rank"].update(z)
    assert module["rank"].second_moment.dtype == torch.float64
    assert module["rank"].compute().item() == pytest.approx(sslcollapse.effective_rank(z), rel=1e-6)
    assert set(module.state_dict()) == {"layer.weight", "layer.bias"}


def test_no_graph_is_kept_of_features_that_need_gradients():
    metric = EffectiveRank(7)
    metric(features().requires_grad_())
    assert not metric.second_moment.requires_grad


def test_several_kinds_are_a_collection():
    metrics = MetricCollection({kind: EffectiveRank(7, kind) for kind in KINDS})
    metrics.update(features())
    metrics.update(features(seed=1))
    z = torch.cat([features(), features(seed=1)])
    for kind, value in metrics.compute().items():
        assert value.item() == pytest.approx(getattr(sslcollapse, kind)(z), rel=1e-6)


def test_features_that_are_not_finite_have_no_rank():
    metric = EffectiveRank(2)
    metric.update(torch.tensor([[1.0, float("inf")]]))
    assert metric.compute().isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_features_the_rank_is_zero():
    assert EffectiveRank(2, centred=True).compute() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 3, "kind": "rank"}, "kind must be one of effective_rank, .*, got 'rank'"),
        ({"dim": 3, "kind": "rankme", "centred": True}, "not centred"),
    ],
)
def test_wrong_arguments_of_the_metric_are_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        EffectiveRank(**arguments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(4, 2), r"expected features \[N, 3\], got shape \(4, 2\)"),
        (torch.zeros(3), r"got shape \(3,\)"),
        (torch.zeros(4, 3, dtype=torch.long), "floating dtype, got torch.int64"),
    ],
)
def test_what_are_no_features_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        EffectiveRank(3).update(given)


def test_without_torchmetrics_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "sslcollapse.integrations.torchmetrics")
    with pytest.raises(ImportError, match="pip install torchmetrics"):
        importlib.import_module("sslcollapse.integrations.torchmetrics")


def test_the_package_of_adapters_imports_none_of_their_frameworks():
    program = (
        "import sys, sslcollapse.integrations as i; "
        "assert {'EffectiveRank', 'CollapseCallback'} <= set(dir(i)); "
        "assert 'torchmetrics' not in sys.modules and 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
