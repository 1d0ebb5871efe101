"""What is wrong with a component is said by name when a run starts, or when the wrong batch comes."""

import json
from pathlib import Path

import pytest
import torch
from tiny import tiny_recipe
from torch import nn

from sslcollapse import (
    DOMAINS,
    ENCODERS,
    OBJECTIVES,
    OPTIMIZERS,
    PROBES,
    Batch,
    Domain,
    Objective,
    ProbeSet,
    RecipeError,
    RegistryError,
    RunError,
    train,
)
from sslcollapse.encoders.mlp import MLP

pytestmark = pytest.mark.usefixtures("own_components")


class Numbers(Domain):
    """Random vectors, from a class of its own that iterates."""

    kind, in_shape = "vector", (4,)
    make = staticmethod(lambda step: Batch(list(torch.randn(2, 8, 4)), torch.arange(8), None, False))
    last = None

    def __init__(self, data_root):
        pass

    def batches(self, start_step, context):
        return Stream(self, start_step)

    def probe_set(self):
        return ProbeSet([torch.randn(20, 4)], torch.zeros(20).long(), 0, {})


class Stream:
    def __init__(self, domain, step):
        self.domain, self.step = domain, step

    def __iter__(self):
        return self

    def __next__(self):
        if self.step == self.domain.last:
            raise StopIteration
        self.step += 1
        return self.domain.make(self.step - 1)


class Plain(nn.Linear):
    out_dim = 3

    def __init__(self, in_shape):
        super().__init__(*in_shape, 3)


class Close(Objective):
    def forward(self, online, target, gather):
        return {"close": (online[0].h - online[1].h).square().mean()}


def run(tmp_path, domain=Numbers, encoder=Plain, objective=Close, **train_options):
    for registry, component in ((DOMAINS, domain), (ENCODERS, encoder), (OBJECTIVES, objective)):
        registry._factories["checked"], registry._targets["checked"] = component, "tests:checked"
        registry._parameters.pop("checked", None)
    recipe = dict(
        name="checked",
        domain=dict(type="checked"),
        encoder=dict(type="checked"),
        objective=dict(type="checked"),
        optim=dict(type="sgd", lr=0.1),
        train=dict(steps=4, log_every=1, **train_options),
        monitor=dict(every=0),
    )
    return train(recipe, out=tmp_path)


def without(base, name):
    """A class with everything of another but one attribute, and no relation to it."""
    members = {key: value for cls in (Domain, Numbers) for key, value in vars(cls).items() if not key.startswith("_")}
    return type("Half", (), {**{k: v for k, v in members.items() if k != name}, "__init__": base.__init__})


def test_a_domain_of_two_methods_and_its_shape_is_trained(tmp_path):
    assert (run(tmp_path) / "result.json").exists()


@pytest.mark.parametrize(
    "name", ["batches", "probe_set", "describe", "check", "load", "notice", "measurable", "neighbours", "draw"]
)
def test_a_method_that_a_domain_lacks_is_named_before_the_first_step(name, tmp_path):
    with pytest.raises(RegistryError, match=rf"domain 'checked': Half has no '{name}'; derive from sslcollapse.Domain"):
        run(tmp_path, domain=without(Numbers, name))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["kind", "in_shape"])
def test_an_attribute_that_a_domain_has_to_state_is_named(name, tmp_path):
    half = type("Half", (Numbers,), {})
    kept = vars(Numbers)[name]
    delattr(Numbers, name)
    try:
        with pytest.raises(RegistryError, match=f"Half has no '{name}'; write {name} = ... in the class"):
            run(tmp_path, domain=half)
    finally:
        setattr(Numbers, name, kept)


class NoWidth(Plain):
    out_dim = None


class NotAgain(nn.Module):
    out_dim = 3

    def __init__(self, in_shape):
        super().__init__()

    def forward(self, view):
        return view


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (NoWidth, r"encoder: NoWidth.out_dim must be the width of its output, a whole number >= 1, got None"),
        (NotAgain, r"encoder: encoder 'checked': NotAgain has no 'reset_parameters'; add it"),
        (type("Wide", (Plain,), {"out_dim": 5}), r"encoder: it returned shape \[8, 3\] for a view, where \[N, 5\]"),
        (type("Pictures", (Plain,), {"reads": ("image",)}), r"'checked' reads views of kind image, and those of"),
    ],
)
def test_an_encoder_that_is_none_is_refused_by_name(encoder, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, encoder=encoder)
    assert not list(tmp_path.rglob("*.json"))


VIEWS, INDEX = list(torch.zeros(2, 8, 4)), torch.arange(8)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((VIEWS, INDEX), r"Numbers.batches\(\) made a tuple, where a sslcollapse.Batch\(views, index"),
        (Batch([], INDEX, None, False), r"Batch.views of Numbers must be a list with one entry a view, got a list"),
        (Batch(torch.zeros(2, 8, 4), INDEX, None, False), r"must be a list with one entry a view, got a Tensor"),
        (Batch(VIEWS, None, None, False), r"Batch.index of Numbers must be a tensor of whole numbers \[B\], got None"),
        (Batch(VIEWS, INDEX, INDEX, False), r"Numbers.num_classes is None, and Batch.labels is not None"),
    ],
)
def test_a_batch_that_is_none_is_refused_before_the_first_step(made, message, tmp_path):
    domain = type("Numbers", (Numbers,), {"make": staticmethod(lambda step: made)})
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, domain=domain)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_label_that_is_no_class_of_the_domain_is_refused_at_the_first_batch(tmp_path):
    make = staticmethod(lambda step: Batch(VIEWS, INDEX, INDEX, False))
    with pytest.raises(RecipeError, match=r"domain: Numbers.num_classes is 5, and there is a label 7"):
        run(tmp_path, domain=type("Numbers", (Numbers,), {"make": make, "num_classes": 5}))


class Fails(Plain):
    def forward(self, view):
        return super().forward(view[:, :3])


def test_an_error_in_the_forward_of_an_encoder_names_the_line_of_its_file(tmp_path):
    line = Fails.forward.__code__.co_firstlineno + 1
    said = rf"encoder: cannot read the views of this domain \(Tensor\): RuntimeError: .*test_run_checks.py:{line}\)$"
    with pytest.raises(RecipeError, match=said):
        run(tmp_path, encoder=Fails)


def test_an_error_in_an_encoder_of_this_package_names_no_file(tmp_path):
    make = staticmethod(lambda step: Batch([["a"]] * 2, INDEX, None, False))
    domain = type("Numbers", (Numbers,), {"make": make})
    with pytest.raises(RecipeError, match=r"encoder: cannot read the views of this domain \(list\)") as raised:
        run(tmp_path, domain=domain, encoder=MLP)
    assert ".py" not in str(raised.value)


def test_a_list_of_batches_is_no_stream(tmp_path):
    domain = type("Numbers", (Numbers,), {"batches": lambda self, step, context: [self.make(0)] * 9})
    with pytest.raises(RecipeError, match=r"Numbers.batches\(\) returned a list, where an iterator without end is"):
        run(tmp_path, domain=domain)


@pytest.mark.parametrize("last", [0, 2])
def test_batches_that_end_are_refused_by_name_when_they_end(last, tmp_path):
    with pytest.raises(RunError, match=rf"Numbers.batches\(\) ended after {last} batches from step 0 on; they"):
        run(tmp_path, domain=type("Numbers", (Numbers,), {"last": last}))


def test_accumulation_asks_an_objective_that_does_not_say_whether_it_couples_samples(tmp_path):
    with pytest.raises(RecipeError, match=r"Close does not say whether its loss couples .*couples_batch = True or"):
        run(tmp_path, accumulate=2)
    stated = type("Stated", (Close,), {"couples_batch": False})
    assert (run(tmp_path, objective=stated, accumulate=2) / "result.json").exists()


@pytest.mark.parametrize(
    ("registry", "component", "message"),
    [
        (
            OPTIMIZERS,
            type("Half", (), {"build": None}),
            r"optimizer 'x': Half has no 'lr_at'; derive from sslc",
        ),
        (PROBES, type("Half", (), {}), r"probe 'x': Half has no '__call__'; derive from sslcollapse.SplitProbe"),
        (OBJECTIVES, type("Half", (nn.Module,), {}), r"Half has no 'projector', .*derive from sslcollapse.Objective"),
    ],
)
def test_every_kind_of_component_that_lacks_something_is_refused_when_it_is_built(registry, component, message):
    registry.register("x")(component)
    with pytest.raises(RegistryError, match=message):
        registry.build({"type": "x"})


def test_ranks_of_a_graph_are_measured_on_as_many_nodes_as_the_recipe_says_and_on_all_by_default(tmp_path):
    def ranks(**monitor):
        parts = dict(optim=dict(type="sgd", lr=0.1), train=dict(steps=1), evaluate={})
        recipe = tiny_recipe("nodes", monitor=dict(every=0, **monitor), **parts)
        run = train(recipe, out=tmp_path / str(monitor))
        return json.loads((run / "result.json").read_text())["rank"]

    assert ranks()["representation"]["n"] == 120
    some = ranks(samples=50)
    assert some["representation"]["n"] == 50
    assert {layer["output"]["n"] for layer in some["layers"].values() if "output" in layer} == {50}


def test_drawing_reads_the_data_first_and_a_domain_without_a_picture_says_so(tmp_path):
    from sslcollapse.training.build import draw_views

    DOMAINS.register("undrawn")(type("Undrawn", (Numbers,), {}))
    recipe = dict(domain=dict(type="undrawn"), data_root=None, seed=0)
    with pytest.raises(RecipeError, match=r"the views of Undrawn cannot be drawn: it has no method draw\(path, sam"):
        draw_views(recipe, Path(tmp_path / "x.png"), 2)
