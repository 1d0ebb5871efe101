"""Weight matrices among the tensors of a file, found by name and shape, as they act.

What pruning, weight norm and spectral norm store in parts is put together again, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

EMBEDDING = "an embedding, by its name"
DEPTHWISE = "a depthwise kernel: vectors, one a channel"
AFFINE = "it scales entry by entry: a normalisation's, by its name or by a bias of its shape"
NUMBERS = "whole numbers"
QUANTISED = "a weight of whole numbers: quantised"
_NO_LAYERS = (EMBEDDING, DEPTHWISE, AFFINE, NUMBERS)

_CHAIN = re.compile(r"^(?:(.*)\.)?parametrizations\.([^.]+)\.(original\d*|\d+\..+)$")
_ROLE = re.compile(r"^(.*)_(orig|mask|g|v|u)$")
_WEIGHTS = re.compile(r"(weight|[qkv]_proj_weight)$")
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

    Shapes:
        weight: [out, in].
    """

    name: str
    depth: int
    weight: Tensor


def find_matrices(tensors: Mapping[str, Tensor]) -> tuple[list[Matrix], Coverage]:
    """Weight matrices in the order of the mapping, and what else there is of two or more dimensions, with the reason.

    By the rules of the layer map as far as names and shapes tell: [out, in] weights, as they act; convolution kernels
    as [out, rest]; stacks of matrices one by one; a fused map as three where the tensors beside it show how it is cut.
    Embeddings, depthwise kernels and what scales entry by entry are no layers. A kernel that reads one channel counts
    as depthwise unless it is the first matrix of the file. A grouped convolution cannot be told from a plain one and is
    one matrix. A tensor under two names appears once.
    """
    whole, left = acting(tensors)
    beside = _modules(whole)
    found: list[Matrix] = []
    others: dict[tuple[Any, ...], Uncovered] = {}
    taken: set[tuple[Any, ...]] = set()
    covered, depth = 0, 0
    for name, tensor in whole.items():
        identity = _identity(name, tensor)
        if tensor.dim() < 2 or identity in taken or (is_vector(tensor.shape) and _layer_name(name) is None):
            continue
        matrices = _matrices(name, tensor.detach(), beside, first=not found)
        if isinstance(matrices, str):
            others.setdefault(identity, Uncovered(name, matrices, tensor.numel(), matrices not in _NO_LAYERS))
            continue
        if matrices:
            found += [Matrix(label, depth, matrix) for label, matrix in matrices]
            depth += 1
        taken.add(identity)
        others.pop(identity, None)  # an embedding that is the output map as well
        covered += tensor.numel()
    sizes = {_identity(name, tensor): tensor.numel() for name, tensor in whole.items() if tensor.dim()}
    total = sum(sizes.values()) + sum(size for _, size in left.values())
    parts = [Uncovered(name, reason, size) for name, (reason, size) in left.items()]
    return found, Coverage(total, covered, (*parts, *others.values()))


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
    name: str, tensor: Tensor, beside: Mapping[str, Mapping[str, Tensor]], *, first: bool
) -> list[tuple[str, Tensor]] | str:
    """(name, matrix) of each layer in a tensor; none where another tensor has been mixed with it; else why not."""
    module, _, leaf = name.rpartition(".")
    siblings = beside[module]
    bias = siblings["bias"].shape if "bias" in siblings else None
    label = _layer_name(name)
    if tensor.layout != torch.strided or tensor.is_meta or tensor.numel() == 0:
        return "it holds no values that can be read"
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return QUANTISED if label is not None else NUMBERS
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


def _items(name: str, tensor: Tensor, siblings: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
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
    return name[: match.start()].rstrip(".") or name


def _parts(
    module: str, leaf: str, weight: Tensor, beside: Mapping[str, Mapping[str, Tensor]]
) -> list[tuple[str, Tensor]]:
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


def acting(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, int]]]:
    """Name → tensor as a forward pass would use it, in the order of the file; name → why not, and how many entries.

    * ``weight_orig`` with ``weight_mask`` (pruning) is their product.
    * ``weight_g`` with ``weight_v`` and ``parametrizations.weight.original0`` with ``original1`` (weight norm) are
      v · g/‖v‖, the norm over the dimensions in which g has one entry.
    * ``weight_orig`` with ``weight_u`` and ``parametrizations.weight.original`` with ``0._u`` and ``0._v`` (spectral
      norm) are W/σ, σ = uᵀWv.
    * Of other parametrizations (orthogonal ones, say) a file has the inputs and not the computation.
    """
    groups = _groups(tensors)
    member = {name: base for base, roles in groups.items() for name in roles.values()}
    found: dict[str, Tensor] = {}
    unread: dict[str, tuple[str, int]] = {}
    for name, tensor in tensors.items():
        base = member.get(name)
        if base is None:
            found[name] = tensor
        elif base not in found and base not in unread:
            roles = {role: tensors[part] for role, part in groups[base].items()}
            value = _value(roles)
            if value is not None:
                found[base] = value
            else:
                size = sum(part.numel() for role, part in roles.items() if role.startswith("orig"))
                unread[base] = (_reason(roles), size)
    return found, unread


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Name of a weight → role → name of the tensor that plays it, of weights that are stored in parts."""
    groups: dict[str, dict[str, str]] = {}
    for name in tensors:
        chain, role = _CHAIN.match(name), _ROLE.match(name)
        if chain is not None:
            base = f"{chain[1]}.{chain[2]}" if chain[1] else chain[2]
            groups.setdefault(base, {})[chain[3]] = name
        elif role is not None:
            groups.setdefault(role[1], {})[role[2]] = name
    return {
        base: roles
        for base, roles in groups.items()
        if base not in tensors and ("orig" in roles or {"g", "v"} <= set(roles) or any(len(role) > 4 for role in roles))
    }


def _value(roles: Mapping[str, Tensor]) -> Tensor | None:
    names = set(roles)
    if names == {"orig", "mask"} and roles["orig"].shape == roles["mask"].shape:
        return roles["orig"] * roles["mask"].to(roles["orig"].dtype)
    if names == {"g", "v"}:
        return _weight_norm(roles["g"], roles["v"])
    if names == {"original0", "original1"}:
        return _weight_norm(roles["original0"], roles["original1"])
    if names in ({"orig", "u", "v"}, {"orig", "u"}):
        return _spectral_norm(roles["orig"], roles["u"], roles.get("v"))
    if names == {"original", "0._u", "0._v"}:
        return _spectral_norm(roles["original"], roles["0._u"], roles["0._v"])
    return None


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor | None:
    if length.dim() == 0:
        return direction * (length / direction.norm())
    one = [dim for dim, size in enumerate(length.shape) if size != 1]
    if length.dim() != direction.dim() or len(one) > 1 or any(length.shape[dim] != direction.shape[dim] for dim in one):
        return None  # two tensors of another parametrization: factors of a product, say
    over = [dim for dim, size in enumerate(length.shape) if size == 1]
    return direction * (length / torch.linalg.vector_norm(direction, dim=over, keepdim=True))


def _spectral_norm(weight: Tensor, left: Tensor, right: Tensor | None) -> Tensor | None:
    for dim in (0, 1):  # a transposed convolution has its outputs in the second dimension
        matrix = weight.movedim(dim, 0).flatten(1) if weight.dim() > dim else weight[:0]
        if left.dim() != 1 or matrix.shape[0] != len(left):
            continue
        if right is None:
            return weight / (matrix.mT @ left).norm()
        if right.shape == matrix.shape[1:]:
            return weight / (left @ (matrix @ right))
    return None


def _reason(roles: Mapping[str, Tensor]) -> str:
    if "orig" in roles:
        return "the file has its original and not the mask or the vectors that act on it"
    return (
        "a parametrization computes it, and a file does not say how; diagnose the state dict after "
        "torch.nn.utils.parametrize.remove_parametrizations"
    )
