"""What of a network the layers do not hold, and why; and what names and shapes of tensors tell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 3
_VECTOR_KERNEL = 31
"""Convolutions over one dimension have kernels up to this length, by and large; matrices in a stack are larger."""

_EMBEDDING = re.compile(r"(^|_)(emb|embed|embeds|embedding|embeddings|wte|wpe)(_|$)")
_TABLE = re.compile(_EMBEDDING.pattern + r"|(^|_)(pos|tokens?|table|rel|latents?|prompts?|bias|biases)(_|$)")
_NORM = re.compile(r"(^|_)(ln|bn|gn)(_|\d|$)|norm(?!al)", re.IGNORECASE)
_WEIGHT = re.compile(r"(.*_)?(weights?|proj|kernel)\d*|w\d*")
_STACK = re.compile(r"(^|_)(experts?|relations?|bilinear)(_|$)")


@dataclass(frozen=True)
class Uncovered:
    """A part of a network that is no layer.

    Attributes:
        name: of the module, or of the parameter where the rest of its module is read.
        reason: why it is no layer.
        parameters: its number of entries.
        unread: it multiplies with matrices, or may do so; else it is no layer by the rules (an embedding, say).
    """

    name: str
    reason: str
    parameters: int
    unread: bool = True


@dataclass(frozen=True)
class Coverage:
    """How much of a network its layers hold.

    Attributes:
        parameters: of the whole network.
        covered: those behind layers. Biases and normalisations are vectors: not covered, and not listed either.
        uncovered: what else there is, in the order of the network.
    """

    parameters: int
    covered: int
    uncovered: Sequence[Uncovered] = ()

    @property
    def share(self) -> float:
        """Share of the parameters that is behind layers; 0 where there are no parameters."""
        return self.covered / self.parameters if self.parameters else 0.0

    @property
    def unread(self) -> list[Uncovered]:
        """The parts that may hold matrices and are not read."""
        return [part for part in self.uncovered if part.unread]

    def __str__(self) -> str:
        share = f"the layers hold {self.covered:,} of {self.parameters:,} parameters ({self.share:.1%})"
        return f"{share}; {described(self.unread)}" if self.unread else share


def described(parts: Sequence[Uncovered]) -> str:
    """One clause on parts that are not read: the first few with their reasons, the largest first."""
    ordered = sorted(parts, key=lambda part: -part.parameters)
    shown = [f"{part.name} ({part.parameters:,} parameters: {part.reason})" for part in ordered[:_SHOWN]]
    rest = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"not read: {', '.join(shown)}{rest}"


def is_vector(shape: Sequence[int]) -> bool:
    """Whether a tensor has at most one dimension that is not 1: a bias, a gain, a token."""
    return sum(size != 1 for size in shape) < 2


def is_embedding(name: str) -> bool:
    """Whether the last part of a module's name says that it is an embedding."""
    return _EMBEDDING.search(name.rpartition(".")[2]) is not None


def is_table(name: str) -> bool:
    """Whether the last part of a tensor's name says that it is looked up or added, not multiplied with."""
    return _TABLE.search(name.rpartition(".")[2]) is not None


def is_norm(name: str) -> bool:
    """Whether the last part of a module's name says that it is a normalisation."""
    return _NORM.search(name.rpartition(".")[2]) is not None


def is_weight(name: str) -> bool:
    """Whether the last part of a tensor's name says that it is a weight."""
    return _WEIGHT.fullmatch(name.rpartition(".")[2]) is not None


def is_stack(
    name: str, shape: Sequence[int], bias: Sequence[int] | None = None, siblings: Sequence[str] = ()
) -> bool | None:
    """Whether a tensor of three dimensions is a stack of matrices; None where it could be a kernel as well.

    A name says so (``experts``, ``relations``, ``bilinear``), or a bias does: a convolution's has an entry for each
    slice of the first dimension, that of a stack has a row for each slice or is shared by all. Without a bias the last
    dimension decides, since long kernels are rare.

    Args:
        name: of the tensor.
        shape: of the tensor.
        bias: shape of the bias beside it, if any.
        siblings: names of the other tensors of its module.
    """
    if len(shape) != 3 or min(shape[1:]) == 1:
        return False
    module, _, leaf = name.rpartition(".")
    if "root" in siblings or any(_STACK.search(part) for part in (module.rpartition(".")[2], leaf)):
        return True
    if bias is not None and (len(bias) > 1 or bias[0] != shape[0]):
        return True
    if shape[2] <= _VECTOR_KERNEL:
        return False
    return True if bias is None else None


def count(shape: Sequence[int]) -> int:
    """Number of entries."""
    return math.prod(shape)
