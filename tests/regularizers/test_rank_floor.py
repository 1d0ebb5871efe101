"""The rank floor as a rule: what moves the coefficient, by how much, and when."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.types import Point
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.record import rank_of
from sslcollapse.rank.spectrum import effective_rank_from_singular_values, singular_values
from sslcollapse.recipe import recipe_hash, resolve
from sslcollapse.regularizers.base import FEATURE_POINTS
from sslcollapse.regularizers.coefficients import resolve_coefficient
from sslcollapse.regularizers.rank_floor import Loop, RankFloor, RankFloorController
from sslcollapse.regularizers.werank import orthogonality_defect


@pytest.fixture
def layers():
    return layer_map(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))


def follow(rule, ranks, attainable=10):
    """The states after each of these ranks."""
    states, loop = [], Loop(rule.start, rule.start)
    for rank in ranks:
        loop = rule.moved(loop, rank, attainable)
        states.append(loop)
    return states


def coefficients(rule, ranks, attainable=10):
    return [loop.coefficient for loop in follow(rule, ranks, attainable)]


def reading(rank, attainable):
    """A rank of so much, of so many that are attainable."""
    rows = torch.ones(attainable)
    row, _ = rank_of(Point("weight", "any"), (attainable, attainable), lambda: rows)
    return replace(row, effective_rank=rank)


def readings(controller, rank):
    return {point: reading(rank, 3) for points in controller.points.values() for point in points}


def test_a_coefficient_rises_by_up_below_the_floor_and_falls_by_down_otherwise_after_the_first_reading():
    rule = RankFloor(target=0.5, start=1.0, min=0.1, max=100.0, up=2.0, down=0.5, smoothing=0.0)
    assert coefficients(rule, [8.0, 3.9, 3.9, 4.0, 9.0]) == [1.0, 2.0, 4.0, 2.0, 1.0]


def test_a_coefficient_never_leaves_its_range():
    rule = RankFloor(start=1.0, min=0.3, max=3.0, up=2.0, down=0.5)
    assert coefficients(rule, [8.0] + [0.1] * 5)[2:] == [3.0] * 4
    assert coefficients(rule, [8.0] * 6)[2:] == [0.3] * 4


def test_with_down_1_a_coefficient_only_rises():
    assert coefficients(RankFloor(start=1e-3, down=1.0), [8.0] * 3) == [1e-3] * 3


def test_the_smoothed_rank_is_the_moving_average_that_starts_at_the_first_reading():
    states = follow(RankFloor(smoothing=0.75), [8.0, 4.0, 0.0])
    assert [loop.smoothed for loop in states] == [8.0, 0.75 * 8 + 1.0, 0.75 * 7.0]
    assert [loop.initial for loop in states] == [8.0] * 3


def test_the_floor_is_a_fraction_of_the_first_rank_or_of_the_attainable_one():
    first, attainable = (RankFloor(target=0.5, relative_to=word) for word in ("initial", "attainable"))
    (loop,) = follow(first, [8.0])
    assert (first.floor(loop), attainable.floor(loop)) == (4.0, 5.0)
    assert math.isnan(first.floor(Loop(1.0, 1.0)))


def test_a_rank_that_is_not_finite_moves_nothing_and_is_forgotten():
    rule = RankFloor()
    steady, disturbed = follow(rule, [8.0, 7.0, 6.0]), follow(rule, [math.nan, 8.0, math.inf, 7.0, math.nan, 6.0])
    assert steady[-1] == disturbed[-1]


def test_the_controller_is_one_sided_so_that_a_rank_that_stays_high_takes_the_coefficient_to_its_least():
    rule = RankFloor(target=0.5)
    low, high = coefficients(rule, [8.0] + [1.0] * 30), coefficients(rule, [8.0] + [8.0] * 100)
    assert (low[-1], high[-1]) == (rule.max, rule.min)


def test_a_loop_recovers_a_collapsed_weight_which_a_coefficient_that_stays_at_its_start_does_not():
    """A plant whose objective shrinks all directions but one, and WERank against it."""

    def run(rule):
        torch.manual_seed(0)
        weight = nn.Parameter(nn.init.orthogonal_(torch.empty(8, 8)))
        controller = rule.resolve(layer_map(nn.Linear(8, 8)), 1000)
        pull, ranks = torch.tensor([0.0] + [0.02] * 7), []
        for step in range(600):
            (alpha,) = controller(step).values()
            loss = (pull[:, None] * weight.square()).sum() + alpha * orthogonality_defect(weight)
            (gradient,) = torch.autograd.grad(loss, weight)
            if controller.is_due(step):
                ranks.append(effective_rank_from_singular_values(singular_values(weight)))
                controller.update(step, readings(controller, ranks[-1]))
            with torch.no_grad():
                weight -= 0.2 * gradient
        return ranks, controller

    rule = dict(target=0.9, of="weight", start=1e-3, max=10.0, down=0.98)
    ranks, controller = run(RankFloor(**rule))
    lost, _ = run(RankFloor(**{**rule, "down": 1.0, "up": 1 + 1e-9}))
    assert lost[-1] < 2
    assert min(ranks) < 0.9 * ranks[0]
    assert min(ranks[-10:]) > 0.9 * ranks[0]
    assert controller.warnings() == []


def test_the_first_step_and_the_last_of_every_so_many_are_due(layers):
    controller = RankFloor(every=5).resolve(layers, 20)
    assert [step for step in range(20) if controller.is_due(step)] == [0, 4, 9, 14, 19]


def test_each_layer_has_a_loop_of_its_own_and_pooled_ones_share_one(layers):
    own = RankFloor(start=1e-3, smoothing=0.0).resolve(layers, 10)
    own.update(0, {Point("output", "0"): reading(4.0, 4), Point("output", "1"): reading(3.0, 3)})
    own.update(9, {Point("output", "0"): reading(1.0, 4), Point("output", "1"): reading(3.0, 3)})
    assert own(10) == pytest.approx({"0": 2e-3, "1": 0.95e-3})
    shared = RankFloor(per="pooled").resolve(layers, 10)
    assert shared.points == {"pooled": (Point("feature", "representation"),)}
    weights = RankFloor(per="pooled", of="weight", smoothing=0.0).resolve(layers, 10)
    weights.update(0, {Point("weight", "0"): reading(4.0, 4), Point("weight", "1"): reading(3.0, 3)})
    assert weights.metrics()["pooled/rank"] == 7.0
    assert set(weights(5)) == {"0", "1"}


def test_steps_up_to_the_newest_reading_keep_the_coefficient_that_they_were_made_with(layers):
    controller = RankFloor(start=1e-3, smoothing=0.0).resolve(layers, 10)
    controller.update(0, readings(controller, 3.0))
    controller.update(9, readings(controller, 1.0))
    assert controller(9) == {"0": 1e-3, "1": 1e-3}
    assert controller(10) == {"0": 2e-3, "1": 2e-3}


def test_a_step_moves_a_controller_once(layers):
    controller = RankFloor().resolve(layers, 10)
    controller.update(9, readings(controller, 3.0))
    with pytest.raises(RunError, match=r"moved by step 9 cannot be moved by step 9 after it"):
        controller.update(9, readings(controller, 3.0))


def test_a_controller_goes_on_from_a_state_dict_as_one_that_did_not_stop(layers, tmp_path):
    controller = RankFloor(start=1e-3).resolve(layers, 10)
    module = nn.ModuleDict({"werank": controller})
    assert list(module.parameters()) == list(module.buffers()) == []
    for step, rank in enumerate((3.0, 1.0)):
        controller.update(step, readings(controller, rank))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    fresh = RankFloor(start=1e-3).resolve(layers, 10)
    nn.ModuleDict({"werank": fresh}).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for each in (controller, fresh):
        each.update(2, readings(each, 2.9))
    assert (fresh.loops, fresh.step, fresh(3)) == (controller.loops, 2, controller(3))
    other = RankFloor(per="pooled").resolve(layers, 10)
    with pytest.raises(RunError, match=r"has the loops 0, 1 and this one pooled; load it into the network"):
        other.set_extra_state(controller.get_extra_state())


def test_a_copy_has_a_state_of_its_own(layers):
    controller = RankFloor().resolve(layers, 10)
    other = copy.deepcopy(controller)
    other.update(0, readings(other, 3.0))
    assert (controller.step, other.step) == (-1, 0)


def test_a_floor_that_the_largest_coefficient_does_not_reach_is_warned_about_by_its_layer(layers):
    controller = RankFloor(start=1e-3, max=1.5e-3, smoothing=0.0).resolve(layers, 10)
    controller.update(0, readings(controller, 3.0))
    controller.update(1, readings(controller, 1.0))
    assert controller.warnings() == []
    controller.update(2, readings(controller, 1.0))
    assert controller.warnings()[1] == (
        "1: the rank floor is out of reach: effective rank 1.0 is below 2.7 with the largest coefficient, 0.0015; "
        "lower target or raise max"
    )
    controller.update(3, readings(controller, 2.8))
    assert controller.warnings() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(target=0.0), r"target must be in \(0, 1\], got 0.0"),
        (dict(target=1.1), r"target must be in \(0, 1\], got 1.1"),
        (dict(target=math.nan), r"target must be in"),
        (dict(up=1.0), "up must be a finite number > 1, got 1.0"),
        (dict(down=0.0), r"down must be in \(0, 1\], got 0.0"),
        (dict(down=1.5), r"down must be in \(0, 1\], got 1.5"),
        (dict(smoothing=1.0), r"smoothing must be in \[0, 1\), got 1.0"),
        (dict(every=0), "every must be >= 1, got 0"),
        (dict(min=0.0), "min must be a finite number > 0, since factors move nothing away from 0, got 0.0"),
        (dict(start=1.0), "min <= start <= max must hold, got min=1e-05, start=1.0, max=0.1"),
        (dict(max=math.inf), "min <= start <= max must hold"),
        (dict(relative_to="best"), "relative_to must be one of 'initial', 'attainable', got 'best'"),
        (dict(of="input"), "of must be one of 'output', 'weight', got 'input'"),
        (dict(per="network"), "per must be one of 'layer', 'pooled', got 'network'"),
    ],
)
def test_a_value_out_of_range_is_refused_and_quoted(arguments, message):
    with pytest.raises(RecipeError, match=message):
        RankFloor(**arguments)


def test_what_has_no_rank_of_that_kind_is_refused():
    attention = layer_map(nn.MultiheadAttention(4, 2))
    with pytest.raises(RecipeError, match=r"MultiheadAttention does not show the product of the weight 'in_proj.q'"):
        RankFloor().resolve(attention, 10)
    assert isinstance(RankFloor(of="weight").resolve(attention, 10), RankFloorController)
    with pytest.raises(RecipeError, match=r"'representation' is a feature and has no weight; use of='output'"):
        RankFloor(of="weight").resolve({"representation": FEATURE_POINTS["representation"]}, 10)


def test_a_schedule_of_a_rank_floor_is_refused(layers):
    with pytest.raises(RecipeError, match=r"a schedule cannot scale a coefficient that follows what is measured"):
        resolve_coefficient({"type": "schedule", "base": {"type": "rank_floor"}}, layers, 10)


def test_a_recipe_that_spells_the_defaults_out_has_the_same_hash(tiny):
    short, long, other = (
        tiny({"type": "rank_floor", **more}) for more in ({}, {"target": 0.9, "every": 10}, {"target": 0.8})
    )
    assert recipe_hash(resolve(short)) == recipe_hash(resolve(long)) != recipe_hash(resolve(other))
    with pytest.raises(RecipeError, match=r"regularizers.werank.coefficient.target: must be in \(0, 1\], got 2.0"):
        resolve(tiny({"type": "rank_floor", "target": 2.0}))


@pytest.fixture
def tiny():
    from tiny import tiny_recipe

    def recipe(coefficient):
        return tiny_recipe(
            "floor",
            regularizers={"werank": {"type": "werank", "coefficient": coefficient}},
            optim={"type": "adamw", "lr": 1e-3},
            train={"steps": 4},
        )

    return recipe
