"""Random streams derived from what they are for, so that step k draws the same numbers in any run."""

from __future__ import annotations

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """A 63-bit seed from integers such as (seed, step, rank, view); near keys give unrelated seeds."""
    words = np.random.SeedSequence([int(part) for part in key]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A torch generator on ``device`` for this key."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


def seed_default(device: torch.device, seed: int) -> None:
    """Start torch's default streams of the host and of one device anew; for use in every step.

    ``torch.manual_seed`` does it for all kinds of devices, and for those that are not in use it formats a traceback at
    each call, which takes longer than the seeding.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
