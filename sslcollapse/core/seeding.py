"""Random streams derived from what they are for, so that step k draws the same numbers in any run.

``STREAMS`` is their version: raise it when a key or what is drawn from it changes.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

STREAMS = 2
"""Version of the random streams; a run of another version may have drawn other numbers.

1: keys were numbers alone, padded with zeros, so that some streams that should be independent were equal.
2: a key has a purpose and its length.
"""

FIRST_STREAMS = 1
"""Version of the random streams of records that name none."""

_FIRST_KEYS = {"view": 4, "toy samples": 3}
"""Purposes that keep the numbers of version 1, with how many coordinates their keys have."""


def derive_seed(purpose: str, *key: int) -> int:
    """A 63-bit seed from a purpose and its coordinates; two keys that differ give unrelated seeds.

    Args:
        purpose: what is drawn, in words: ``"view"``, ``"order"``, ``"step"``, ... A plug-in names its own.
        key: whole numbers such as (seed, step, rank, view). Views have these four and draw what they always did.

    Raises:
        ValueError: a key of another length than its purpose has.

    >>> derive_seed("order", 7, 0) == derive_seed("order", 7, 0, 0)
    False
    """
    if purpose in _FIRST_KEYS:
        if len(key) != _FIRST_KEYS[purpose]:
            raise ValueError(f"a key for {purpose!r} has {_FIRST_KEYS[purpose]} coordinates, got {len(key)}: {key}")
        words = np.random.SeedSequence([int(part) for part in key]).generate_state(2, np.uint32)
        return (int(words[0]) << 31) ^ int(words[1])
    text = ",".join([repr(purpose), *(str(int(part)) for part in key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device, purpose: str, *key: int) -> torch.Generator:
    """A torch generator on ``device`` for this purpose and key."""
    return torch.Generator(device=device).manual_seed(derive_seed(purpose, *key))


def seed_default(device: torch.device, seed: int) -> None:
    """Start torch's default streams of the host and of one device anew; for use in every step.

    ``torch.manual_seed`` does it for all kinds of devices, and for those that are not in use it formats a traceback at
    each call, which takes longer than the seeding.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
