"""What keeps a function from being captured, as far as it can be known without a GPU."""

import torch

from sslcollapse.core.capture import HostCopies, _first_cause

META = torch.device("meta")


def test_copies_from_the_host_are_listed_with_their_line_and_those_between_devices_are_not():
    there, here = torch.zeros(3, device=META), torch.zeros(3)
    with HostCopies() as copies:
        _ = there.to(torch.float64) + torch.ones(3, device=META) * 2.0
        there[1:] = 4.0
        there.copy_(torch.ones(3, device=META))
        _ = here.to(torch.float64)
        assert copies.places == []
        _ = here.to(META)
        there.copy_(here)
    assert [place.rpartition(":")[0] for place in copies.places] == [__file__] * 2


def test_the_error_that_came_first_is_the_one_that_is_told():
    first, then = RuntimeError("an operation is not\n permitted"), ValueError("the capture cannot be ended")
    then.__context__ = first
    assert _first_cause(then) == "RuntimeError: an operation is not permitted"
    assert _first_cause(first) == "RuntimeError: an operation is not permitted"
