"""The bounds of these tests can be missed; needs no GPU."""

import pytest
import torch
from on_device import EXACT, assert_near, differences


def test_a_value_that_is_two_bounds_away_is_named():
    wanted = {"near": torch.ones(10), "far": torch.ones(10)}
    found = {"near": torch.ones(10), "far": (1 + 2.1 * EXACT) * torch.ones(10)}
    with pytest.raises(AssertionError, match=r"1 of 2 are further apart than 0.0001: far 2.0\de-04"):
        assert_near(found, wanted)


def test_what_is_not_a_number_is_far_and_equal_zeros_are_not():
    with pytest.raises(AssertionError, match="a nan"):
        assert_near({"a": torch.tensor([float("nan")])}, {"a": torch.ones(1)})
    assert differences({"a": torch.zeros(3)}, {"a": torch.zeros(3)}) == {"a": 0.0}
    with pytest.raises(AssertionError, match="a inf"):
        assert_near({"a": torch.ones(3)}, {"a": torch.zeros(3)})


def test_another_shape_is_no_near_value():
    with pytest.raises(AssertionError, match=r"a: \[3\] in place of \[2\]"):
        assert_near({"a": torch.ones(3)}, {"a": torch.ones(2)})
