"""A monitor never breaks what it watches, and leaves nothing behind: other monitors, threads, Ctrl-C, odd outputs."""

import copy
import pickle
import threading
import warnings

import pytest
import torch
from torch import nn

from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.rank.recorder import EAGER


class Failing(nn.Module):
    """Passes on what it gets, or raises."""

    error: type[BaseException] | None = None

    def forward(self, x):
        if self.error is not None:
            raise self.error
        return x


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), Failing(), nn.Linear(8, 3))


def batch(n=20):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(0))


def rows_of(monitor):
    return {row.layer: row.n for row in monitor.summary() if row.kind == "output"}


def stance():
    return torch._dynamo.eval_frame._stance.stance


def check_clean(model, before):
    assert set(vars(model)) == before
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert stance() == "default"


@pytest.mark.parametrize("first", [0, 1])
def test_two_monitors_leave_the_network_and_the_compiler_as_they_were(first):
    model = network()
    before = set(vars(model))
    monitors = [CollapseMonitor(model, every=2), CollapseMonitor(model, every=2)]
    for _ in range(2):
        model(batch())
        assert stance() == "default"
    assert [rows_of(monitor) for monitor in monitors] == [{"0": 20, "2": 20}] * 2
    monitors[first].close()
    model(batch())
    assert rows_of(monitors[1 - first]) == {"0": 20, "2": 20}
    monitors[1 - first].close()
    check_clean(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("count", [1, 2])
def test_a_forward_that_ends_early_ends_its_measurement_at_once_and_the_next_is_measured(error, count):
    model = network()
    before = set(vars(model))
    monitors = [CollapseMonitor(model, every=1) for _ in range(count)]
    model[1].error = error
    with pytest.raises(error):
        model(batch())
    assert stance() == "default"
    assert not model[0]._forward_hooks
    model[1].error = None
    model(batch())
    assert [rows_of(monitor) for monitor in monitors] == [{"0": 40, "2": 20}] * count
    for monitor in monitors:
        monitor.close()
    check_clean(model, before)


def test_an_interrupted_step_leaves_nothing():
    model = network()
    before = set(vars(model))
    model[1].error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), CollapseMonitor(model, every=1) as monitor, monitor.step():
        model(batch())
    check_clean(model, before)


def test_copies_of_a_watched_network_have_nothing_of_the_monitor():
    model = network()
    monitor = CollapseMonitor(model, every=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_compiled_call_impl" not in vars(other)
        assert torch.equal(other(batch()), model(batch()))
    assert monitor.forwards == 2


def test_a_compiled_call_that_was_there_comes_back_and_one_made_since_stays():
    torch._dynamo.reset()
    model = network()
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    monitor = CollapseMonitor(model, every=1)
    model(batch())
    assert rows_of(monitor) == {"0": 20, "2": 20}
    monitor.close()
    assert model._compiled_call_impl is compiled
    model = network()
    monitor = CollapseMonitor(model, every=1)
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    model(batch())
    assert rows_of(monitor) == {"0": 20, "2": 20}
    monitor.close()
    assert model._compiled_call_impl is compiled
    torch._dynamo.reset()


def test_four_threads_lose_no_rows():
    model = network()
    before = set(vars(model))
    monitor = CollapseMonitor(model, every=1)
    threads = [threading.Thread(target=lambda: [model(batch(16)) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (monitor.forwards, monitor.measured) == (200, 200)
    assert rows_of(monitor) == {"0": 3200, "2": 3200}
    monitor.close()
    check_clean(model, before)


def test_a_forward_that_is_not_measured_adds_nothing_to_one_that_is_in_another_thread():
    model = network()
    monitor = CollapseMonitor(model, every=2)
    inside, done = threading.Event(), threading.Event()

    def wait(module, inputs):
        if threading.current_thread() is slow:
            inside.set()
            done.wait(60)

    handle = model[1].register_forward_pre_hook(wait)
    slow = threading.Thread(target=model, args=(batch(),))
    slow.start()
    assert inside.wait(60)
    model(batch(7))
    done.set()
    slow.join()
    handle.remove()
    assert rows_of(monitor) == {"0": 20, "2": 20}


TRANSFORMS = {
    "grad": lambda model: torch.func.grad(
        lambda params: torch.func.functional_call(model, params, (batch(),)).square().sum()
    )(dict(model.named_parameters()))["0.weight"],
    "vmap": lambda model: torch.func.vmap(model)(batch()[:, None]),
    "hessian": lambda model: torch.func.hessian(lambda x: model(x).square().sum())(batch()[0]),
    "jvp": lambda model: torch.func.jvp(model, (batch(),), (batch(),))[1],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_function_transforms_of_a_watched_network_are_those_of_an_unwatched_one(name):
    model = network()
    expected = TRANSFORMS[name](model)
    with CollapseMonitor(model, every=1) as monitor:
        torch.testing.assert_close(TRANSFORMS[name](model), expected)
        model(batch())
        with pytest.warns(UserWarning, match=r"leaves out an output of layer '2': it is inside torch\.func"):
            assert rows_of(monitor) == {"0": 20, "2": 20}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor.summary()
        assert set(monitor.unread) == {"0", "2"}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_transformer_with_a_padding_mask_runs_as_it_does_unwatched():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    x, padded = torch.randn(8, 64, 16), torch.zeros(8, 64, dtype=torch.bool)
    padded[1:, 40:] = True
    with torch.no_grad(), CollapseMonitor(model) as monitor:
        expected = model(x, src_key_padding_mask=padded)
        with monitor.observe():
            torch.testing.assert_close(model(x, src_key_padding_mask=padded), expected, rtol=1e-4, atol=1e-5)
        with pytest.warns(UserWarning, match="it is nested; .* none with enable_nested_tensor"):
            assert rows_of(monitor) == {}
        model.use_nested_tensor = False
        with monitor.observe():
            model(x, src_key_padding_mask=padded)
        assert rows_of(monitor)["layers.1.linear2"] == 512


class Odd(nn.Linear):
    """A layer that puts out something else than its product."""

    result = None

    def effective_weight(self):
        return self.weight

    def forward(self, x):
        return self.result(super().forward(x))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda y: {"y": y}, "it is no tensor but dict"),
        (lambda y: y.to_sparse(), "it has the layout torch.sparse_coo"),
        (lambda y: y.int(), r"it has the shape \(20, 3\) and the type torch.int32"),
        (lambda y: y[:, :2], r"it has the shape \(20, 2\)"),
        (lambda y: y.to("meta"), "it is on the meta device"),
        (lambda y: y.sum(), r"it has the shape \(\)"),
    ],
)
def test_an_output_that_is_no_plain_matrix_has_no_row_and_the_reason_is_told_once(result, reason):
    model = nn.Sequential(nn.Linear(5, 5), Odd(5, 3))
    model[1].result = result
    with CollapseMonitor(model, every=1) as monitor:
        model(batch())
        with pytest.warns(UserWarning, match=rf"leaves out an output of layer '1': {reason}"):
            assert rows_of(monitor) == {"0": 20}


class Refusing(torch.Tensor):
    """A tensor that nobody can read."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        raise NotImplementedError("not for reading")


def test_an_error_while_an_output_is_read_is_kept_and_not_raised():
    model = nn.Sequential(nn.Linear(5, 5), Odd(5, 3))
    model[1].result = lambda y: y.as_subclass(Refusing)
    with CollapseMonitor(model, every=1) as monitor:
        assert type(model(batch())) is Refusing
        assert monitor.unread == {"1": "NotImplementedError: not for reading"}
        model[1].result = lambda y: y
        model(batch())
        with pytest.warns(UserWarning, match="NotImplementedError"):
            assert rows_of(monitor) == {"0": 40, "1": 20}


def test_complex_layers_and_layers_without_width_have_rows():
    model = nn.Sequential(nn.Linear(5, 8, dtype=torch.complex64), nn.Linear(8, 0, dtype=torch.complex64))
    with CollapseMonitor(model, every=1) as monitor:
        x = torch.complex(batch(), batch(20).flip(0))
        model(x)
        rows = {(row.kind, row.layer): row for row in monitor.summary()}
    sigma = torch.linalg.svdvals(model[0](x).detach().to(torch.complex128))
    torch.testing.assert_close(monitor.spectra["output/0"], sigma, rtol=1e-4, atol=1e-4)
    assert rows["weight", "1"].fraction == rows["output", "1"].fraction == 0.0
    assert EAGER._holders == 0


@pytest.mark.parametrize(("value", "message"), [(1.5, "a whole number, got 1.5"), ("2", "a whole number, got '2'")])
@pytest.mark.parametrize("name", ["every", "max_rows"])
def test_counts_that_are_no_whole_numbers_are_refused(name, value, message):
    with pytest.raises(ValueError, match=f"{name} must be {message}"):
        CollapseMonitor(network(), **{name: value})
    with pytest.raises(ValueError, match="every must be a whole number, got True"):
        CollapseMonitor(network(), every=True)
