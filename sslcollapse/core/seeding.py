"""Random streams derived from what they are for, so that step k draws the same numbers in any run.

``STREAMS`` is their version: raise it when a key or what is drawn from it changes.
"""

from __future__ import annotations

import hashlib
import math

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


# Of SplitMix64, as int64 holds them.
_STEP, _FIRST, _SECOND = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_ROUNDS = 8


def permuted(places: torch.Tensor, count: int, key: int) -> torch.Tensor:
    """What stands at some places of a permutation of 0 … ``count`` - 1, which is never made as a whole.

    A place is a pair of numbers below a and b, where a b is at least ``count`` and hardly more. In turn a hash of one
    of them is added to the other, modulo a or b. That is a bijection for any hash (a Feistel network on two moduli;
    Black & Rogaway 2002), and so is going on from what is outside 0 … ``count`` - 1 until it is inside.

    Args:
        places: whole numbers from 0 to ``count`` - 1.
        count: how many there are.
        key: which permutation.

    Shapes:
        places: [n], as the result.
    """
    a = max(1, math.isqrt(count - 1) + 1)
    b = -(-count // a)
    below = (1 << 62) - 1  # a hash of so many bits and a coordinate have a sum without overflow
    result = places.clone()
    left = torch.arange(len(places))
    while len(left):
        first, second = result[left] // b, result[left] % b
        for number in range(0, _ROUNDS, 2):
            first = (first + hashed(key, second, number + 1).bitwise_and_(below)) % a
            second = (second + hashed(key, first, number + 2).bitwise_and_(below)) % b
        result[left] = first * b + second
        left = left[result[left] >= count]
    return result


def hashed(key: int, first: torch.Tensor, *others: torch.Tensor | int) -> torch.Tensor:
    """Uniform whole numbers of 63 bits from a key and coordinates, which are whole numbers.

    SplitMix64's output function (Steele, Lea & Flood 2014), once for each coordinate, on numbers that wrap at 64 bits.
    """
    state = _mixed(first * _STEP + key)
    for other in others:
        state = _mixed(state + (other * _STEP if isinstance(other, torch.Tensor) else _wrapped(other * _STEP)))
    return state.bitwise_and_((1 << 63) - 1)


def _wrapped(number: int) -> int:
    """As int64 holds it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Of numbers that nobody else has, which are written to: a step is bound by memory, and by the pages of new one."""
    x.bitwise_xor_(_shifted(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shifted(x, 31))


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)  # torch's shift brings the sign along


def seed_default(device: torch.device, seed: int) -> None:
    """Start torch's default streams of the host and of one device anew; for use in every step.

    ``torch.manual_seed`` does it for all kinds of devices, and for those that are not in use it formats a traceback at
    each call, which takes longer than the seeding.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
