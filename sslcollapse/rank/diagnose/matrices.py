"""Weight matrices among the tensors of a file, found by name and shape, as they act.

In memory, or read from a file a tensor at a time. What is stored in parts is put together again (``acting.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcollapse.layers.layer import (
    Coverage,
    Uncovered,
    is_embedding,
    is_norm,
    is_stack,
    is_table,
    is_vector,
    is_weight,
)
from sslcollapse.rank.diagnose.acting import acting, acting_value, groups_of

EMBEDDING = "an embedding, by its name"
DEPTHWISE = "a depthwise kernel: vectors, one a channel"
AFFINE = "it scales entry by entry: a normalisation's, by its name or by a bias of its shape"
NUMBERS = "whole numbers"
QUANTISED = "a weight of whole numbers, or of few bits with scales beside it: quantised"
_NO_LAYERS = (EMBEDDING, DEPTHWISE, AFFINE, NUMBERS)

_WEIGHTS = re.compile(r"(weight|[qkv]_proj_weight)$")
_PACKED = ("qweight", "weight_packed")
_RECURRENT = re.compile(r"^weight_(ih|hh|hr)(_l\d+)?(_reverse)?$")
_PLAIN_ATTENTION = {
    *("qkv", "proj", "q_norm", "k_norm", "norm", "gate", "q_bias", "k_bias", "v_bias", "proj_l", "proj_w"),
    *("relative_position_bias_table", "relative_position_index", "relative_coords_table", "cpb_mlp", "logit_scale"),
    *("rel_pos_h", "rel_pos_w", "temperature"),
}
"""What attentions of vision transformers hold whose ``qkv`` is [q; k; v]; those with ``attention_biases``, say, have
theirs head by head."""


@dataclass(frozen=True)
class Matrix:
    """One weight matrix by name.

    Attributes:
        name, depth: of the layer.
        weight: [out, in].
        adapter: rank that a low-rank adapter allows, whose change BA of a weight this is; 0 of a weight.
    """

    name: str
    depth: int
    weight: Tensor
    adapter: int = 0


Parts = list[tuple[str, Tensor]]
"""(name, matrix) of each layer in a tensor."""


@dataclass(frozen=True)
class _Stored:
    """A tensor that holds layers: their names, their depth, what reads and cuts it, the rank of an adapter."""

    names: Sequence[str]
    depth: int
    parts: Callable[[], Parts]
    adapter: int = 0


class StoredMatrices:
    """Matrices whose values are read when they are asked for, a tensor at a time, and not kept."""

    def __init__(self, stored: Sequence[_Stored]) -> None:
        self._stored = stored
        self._places = {name: tensor for tensor in stored for name in tensor.names}

    def __len__(self) -> int:
        return sum(len(tensor.names) for tensor in self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Matrix]:
        for tensor in self._stored:
            parts = tensor.parts()
            parts.reverse()
            while parts:  # nothing here holds on to what has been given, so that it is gone before the next is read
                yield _popped(parts, tensor)

    def names(self) -> list[str]:
        """Names of the layers, in order."""
        return list(self._places)

    def get(self, name: str) -> Matrix:
        """One of them."""
        tensor = self._places[name]
        return Matrix(name, tensor.depth, dict(tensor.parts())[name], tensor.adapter)


def _popped(parts: Parts, tensor: _Stored) -> Matrix:
    name, weight = parts.pop()
    return Matrix(name, tensor.depth, weight, tensor.adapter)


def find_matrices(tensors: Mapping[str, Tensor]) -> tuple[list[Matrix], Coverage]:
    """Weight matrices in the order of the mapping, and what else there is of two or more dimensions, with the reason.

    By the rules of the layer map as far as names and shapes tell: [out, in] weights, as they act; convolution kernels
    as [out, rest]; stacks of matrices one by one; a fused map as three where the tensors beside it show how it is cut.
    Embeddings, depthwise kernels and what scales entry by entry are no layers. A kernel that reads one channel counts
    as depthwise unless it is the first matrix of the file. A grouped convolution cannot be told from a plain one and is
    one matrix. A tensor under two names appears once.
    """
    found, coverage = find_stored(tensors)
    return list(found), coverage


def find_stored(
    tensors: Mapping[str, Tensor],
    read: Callable[[str], Tensor] | None = None,
    scaling: Callable[[str, int], float] = lambda name, rank: 1.0,
) -> tuple[StoredMatrices, Coverage]:
    """What ``find_matrices`` gives, read a tensor at a time.

    Args:
        tensors: name → tensor; where values are to be read later, on the meta device, which has shapes alone.
        read: name → the values of that tensor; None where ``tensors`` has them.
        scaling: name of a layer and rank of its adapter → what the change BA is multiplied with.
    """
    whole, left = acting(tensors)
    beside = _modules(whole)
    groups = groups_of(tensors)
    found: list[_Stored] = []
    others: dict[tuple[Any, ...], Uncovered] = {}
    taken: set[tuple[Any, ...]] = set()
    covered, depth = 0, 0
    entries = {name: tensor.numel() for name, tensor in whole.items()}
    for name, roles in groups.items():
        if "lora A" in roles and name in entries:
            entries[name] = sum(tensors[part].numel() for part in roles.values())
    for name, tensor in whole.items():
        identity = _identity(name, tensor)
        if tensor.dim() < 2 or identity in taken or (is_vector(tensor.shape) and _layer_name(name) is None):
            continue
        matrices = _matrices(name, tensor.detach(), beside, first=not found, later=read is not None)
        if isinstance(matrices, str):
            others.setdefault(identity, Uncovered(name, matrices, tensor.numel(), matrices not in _NO_LAYERS))
            continue
        if matrices:
            group = groups.get(name, {})
            adapter = tensors[group["lora A"]].shape[0] if "lora A" in group else 0
            parts = _known(matrices) if read is None else _reader(name, beside, not found, group, read)
            if adapter:
                parts = _scaled(parts, scaling(name.rpartition(".lora")[0], adapter))
            found.append(_Stored([label for label, _ in matrices], depth, parts, adapter))
            depth += 1
        taken.add(identity)
        others.pop(identity, None)  # an embedding that is the output map as well
        covered += entries[name]
    sizes = {_identity(name, tensor): entries[name] for name, tensor in whole.items() if tensor.dim()}
    total = sum(sizes.values()) + sum(size for _, size in left.values())
    unread = [Uncovered(name, reason, size) for name, (reason, size) in left.items()]
    return StoredMatrices(found), Coverage(total, covered, (*unread, *others.values()))


def _known(parts: Parts) -> Callable[[], Parts]:
    return lambda: list(parts)


def _scaled(parts: Callable[[], Parts], factor: float) -> Callable[[], Parts]:
    return lambda: [(name, change * factor) for name, change in parts()]


def _reader(
    name: str,
    beside: Mapping[str, Mapping[str, Tensor]],
    first: bool,
    group: Mapping[str, str],
    read: Callable[[str], Tensor],
) -> Callable[[], Parts]:
    """Reads a tensor, or the parts that it is put together from, and cuts it as was planned."""

    def parts() -> Parts:
        module = name.rpartition(".")[0]
        value = acting_value({role: read(part) for role, part in group.items()}) if group else read(name)
        mix = {"comp": read(f"{module}.comp" if module else "comp")} if "comp" in beside[module] else {}
        siblings = {**beside, module: {**beside[module], **mix}}
        found = _matrices(name, value, siblings, first=first) if value is not None else ""
        return [] if isinstance(found, str) else found

    return parts


def _identity(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """What two names of one tensor share."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized and tensor.numel()
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if plain else (name,)


def _modules(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Name of a module → the tensors that it holds itself, by their last names."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = tensor
    return modules


def _matrices(
    name: str, tensor: Tensor, beside: Mapping[str, Mapping[str, Tensor]], *, first: bool, later: bool = False
) -> Parts | str:
    """(name, matrix) of each layer in a tensor; none where another tensor has been mixed with it; else why not."""
    module, _, leaf = name.rpartition(".")
    siblings = beside[module]
    bias = siblings["bias"].shape if "bias" in siblings else None
    label = _layer_name(name)
    if tensor.layout != torch.strided or (tensor.is_meta and not later) or tensor.numel() == 0:
        return "it holds no values that can be read"
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return QUANTISED if label is not None or leaf in _PACKED else NUMBERS
    if any(sibling.startswith("weight_scale") for sibling in siblings):
        return QUANTISED
    if tensor.dim() == 2 and leaf in ("root", "comp") and siblings.get("weight", tensor).dim() > 2:
        return [(name, tensor.mT)] if leaf == "root" else []  # of relations; the other mixes them and is in each
    if _RECURRENT.search(leaf) is not None:
        return "a weight of a recurrent network (LSTM, GRU), which multiplies with it at every step"
    if bias == tensor.shape or is_norm(module):
        return AFFINE
    if is_embedding(module) or (label is None and is_table(leaf)):
        return EMBEDDING
    stack = is_stack(name, tensor.shape, bias, list(siblings)) if is_weight(leaf) else False
    if stack is None:
        return "it may be a stack of matrices or the kernel of a convolution; names and shapes do not tell which"
    if stack or (tensor.dim() > 3 and "root" in siblings):
        return _items(name, tensor, siblings)
    if label is None:
        return "its name does not say that it is a weight"
    if "gain" in siblings:
        return "a convolution with a gain standardises its weight, and the file does not say how"
    if tensor.dim() > 2 and tensor.shape[1] == 1 and not first:
        return DEPTHWISE
    parts = _parts(module, leaf, tensor, beside) if tensor.dim() == 2 else [("", tensor.flatten(1))]
    return [(_join(label, part), rows) for part, rows in parts]


def _items(name: str, tensor: Tensor, siblings: Mapping[str, Tensor]) -> Parts:
    mix = siblings.get("comp")
    if mix is not None and mix.dim() == 2 and mix.shape[1] == tensor.shape[0]:
        tensor = torch.einsum("rb,bio->rio", mix.to(tensor.dtype), tensor)
    if "root" in siblings or mix is not None:  # relations of PyTorch Geometric are [in, out]
        tensor = tensor.mT
    return [(f"{name}.{item}", matrix) for item, matrix in enumerate(tensor.flatten(0, -3))]


def _layer_name(name: str) -> str | None:
    """Name of the module whose weight a tensor is, or None."""
    if name == "in_proj_weight" or name.endswith(".in_proj_weight"):
        return name.removesuffix("_weight")
    match = _WEIGHTS.search(name)
    if match is None or (match.start() > 0 and name[match.start() - 1] != "."):
        return None
    if match.group(1).endswith("_proj_weight"):  # the separate query, key and value maps of an attention
        return name[: match.start()] + f"in_proj.{match.group(1)[0]}"
    return name[: match.start()].rstrip(".").removesuffix(".base_layer") or name  # PEFT's name of what it wraps


def _parts(module: str, leaf: str, weight: Tensor, beside: Mapping[str, Mapping[str, Tensor]]) -> Parts:
    """The parts of a fused map where the tensors beside it show that it is three equal ones; else itself."""
    attention, _, own = module.rpartition(".")
    output = _join(module, "out_proj") if leaf == "in_proj_weight" else _join(attention, "proj")
    plain = leaf == "in_proj_weight" or (own == "qkv" and _words(attention, beside) <= _PLAIN_ATTENTION)
    into = beside.get(output, {}).get("weight")
    if not plain or into is None or into.dim() != 2 or 3 * into.shape[1] != weight.shape[0]:
        return [("", weight)]
    return [(part, rows) for part, rows in zip("qkv", weight.chunk(3), strict=True)]


def _words(module: str, beside: Mapping[str, Mapping[str, Tensor]]) -> set[str]:
    """The first names of all that a module holds."""
    start = f"{module}." if module else ""
    inside = {name[len(start) :].partition(".")[0] for name in beside if name.startswith(start) and name != module}
    return inside | set(beside.get(module, {}))


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


_KINDS = {
    "experts": r"experts?(\.|_|$)",
    "router": r"(router|gate)$",
    "attention": (
        r"attn|attention|mha|(^|[._])(in_proj|out_proj|qkv|c_attn|query|key|value|query_key_value)(\.|$)"
        r"|(^|\.)(q|k|v|o|qkv)_proj"
    ),
    "MLP": r"mlp|ffn|feed_?forward|(^|\.)(fc\d?|c_fc|w[123io](_\d)?|intermediate|(up|down|gate)_proj|linear[12])(\.|$)",
    "output map": r"(^|\.)(lm_head|embed_out|head|classifier|score)$",
}


def kind_of_layer(name: str) -> str:
    """``attention``, ``MLP``, ``experts``, ``router`` or ``output map`` by a layer's name; else ``other``."""
    return next((kind for kind, pattern in _KINDS.items() if re.search(pattern, name)), "other")
