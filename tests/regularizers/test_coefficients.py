import pytest
from torch import nn

from sslcollapse.core.errors import RecipeError
from sslcollapse.layers.map import layer_map
from sslcollapse.regularizers.coefficients import resolve_coefficient


@pytest.fixture
def layers():
    return layer_map(nn.ModuleDict({"convs": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))}))


def at(spec, layers, step=0, total=100):
    return resolve_coefficient(spec, layers, total)(step)


def test_a_number_is_the_coefficient_of_every_layer(layers):
    assert at(0.1, layers) == {"convs.0": 0.1, "convs.1": 0.1, "convs.2": 0.1}


def test_an_exact_name_beats_a_glob_whatever_the_order(layers):
    expected = {"convs.0": 0.5, "convs.1": 0.1, "convs.2": 0.1}
    assert at({"convs.0": 0.5, "convs.*": 0.1}, layers) == expected
    assert at({"convs.*": 0.1, "convs.0": 0.5}, layers) == expected


def test_layers_that_nothing_names_get_zero(layers):
    assert at({"convs.1": 0.3}, layers) == {"convs.0": 0.0, "convs.1": 0.3, "convs.2": 0.0}


def test_two_globs_that_give_one_layer_different_values_are_refused(layers):
    with pytest.raises(RecipeError, match=r"'convs.\*' = 0.1 and '\*.2' = 0.2 both match layer 'convs.2'"):
        at({"convs.*": 0.1, "*.2": 0.2}, layers)


def test_two_globs_that_agree_or_are_overruled_by_an_exact_name_are_fine(layers):
    assert at({"convs.*": 0.1, "*.2": 0.1}, layers)["convs.2"] == 0.1


def test_a_glob_that_matches_nothing_lists_the_layers(layers):
    with pytest.raises(RecipeError, match=r"'conv.0' matches no layer; did you mean 'convs.0'\? \(layers: convs.0, "):
        at({"conv.0": 0.1}, layers)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "much"])
def test_a_coefficient_that_is_not_a_finite_non_negative_number_is_refused(layers, value):
    with pytest.raises(RecipeError, match=r"coefficient must be a finite number >= 0, got"):
        at(value, layers)


def test_depth_interpolates_from_first_to_last(layers):
    assert list(at({"type": "depth", "first": 0.0, "last": 1.0}, layers).values()) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        ({}, [1, 1, 1]),
        ({"stop": 0.0}, [1, 0, 0]),
        ({"start": 1.0}, [0, 0, 1]),
        ({"start": 0.4, "stop": 0.6}, [0, 1, 0]),
    ],
)
def test_a_band_gives_the_layers_within_a_relative_depth_the_coefficient(layers, band, expected):
    assert list(at({"type": "band", "value": 1.0, **band}, layers).values()) == expected


def test_a_band_without_layers_says_where_the_layers_are(layers):
    with pytest.raises(RecipeError, match=r"relative depth from 0.6 to 0.9 \(convs.0 0, convs.1 0.5, convs.2 1\)"):
        at({"type": "band", "value": 1.0, "start": 0.6, "stop": 0.9}, layers)
    with pytest.raises(RecipeError, match=r"got start=0.7, stop=0.2"):
        at({"type": "band", "value": 1.0, "start": 0.7, "stop": 0.2}, layers)


def test_a_schedule_can_start_late_warm_up_and_decay(layers):
    spec = {"type": "schedule", "base": 1.0, "start": 10, "warmup": 9, "schedule": "constant"}
    values = [at(spec, layers, step)["convs.0"] for step in (0, 9, 10, 14, 19, 99)]
    assert values == pytest.approx([0.0, 0.0, 0.1, 0.5, 1.0, 1.0])
    fading = {"type": "schedule", "base": 1.0, "schedule": "linear", "final": 0.5}
    assert at(fading, layers, 50)["convs.0"] == pytest.approx(0.75)
    assert at(fading, layers, 100)["convs.0"] == pytest.approx(0.5)


def test_a_schedule_scales_a_mapping_of_layers(layers):
    spec = {"type": "schedule", "base": {"convs.1": 0.4}, "start": 5}
    assert at(spec, layers, 4)["convs.1"] == 0.0
    assert at(spec, layers, 5) == {"convs.0": 0.0, "convs.1": 0.4, "convs.2": 0.0}


def test_a_coefficient_that_names_no_layer_is_refused():
    with pytest.raises(RecipeError, match=r"coefficient \{\} names no layer \(layers: 0\)"):
        resolve_coefficient({}, layer_map(nn.Sequential(nn.Linear(2, 2))), 10)
