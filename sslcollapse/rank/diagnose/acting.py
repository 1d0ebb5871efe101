"""Weights that a file has in parts, as they act, by name: of pruning, weight norm, spectral norm, low-rank adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

_CHAIN = re.compile(r"^(?:(.*)\.)?parametrizations\.([^.]+)\.(original\d*|\d+\..+)$")
_ADAPTER = re.compile(r"^(.+)\.lora_(A|B|down|up)((?:\.[^.]+)*)\.weight$")
_SIDES = {"A": "lora A", "down": "lora A", "B": "lora B", "up": "lora B"}
_ROLE = re.compile(r"^(.*)_(orig|mask|g|v|u)$")


def acting(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, int]]]:
    """Name → tensor as a forward pass would use it, in the order of the file; name → why not, and how many entries.

    * ``weight_orig`` with ``weight_mask`` (pruning) is their product.
    * ``weight_g`` with ``weight_v`` and ``parametrizations.weight.original0`` with ``original1`` (weight norm) are
      v · g/‖v‖, the norm over the dimensions in which g has one entry.
    * ``weight_orig`` with ``weight_u`` and ``parametrizations.weight.original`` with ``0._u`` and ``0._v`` (spectral
      norm) are W/σ, σ = uᵀWv.
    * ``x.lora_A.weight`` with ``x.lora_B.weight`` (a low-rank adapter; with its name between the two words, or called
      ``lora_down`` and ``lora_up``) is ``x.lora.weight``: the change BA, unscaled.
    * Of other parametrizations (orthogonal ones, say) a file has the inputs and not the computation.
    """
    groups = groups_of(tensors)
    member = {name: base for base, roles in groups.items() for name in roles.values()}
    found: dict[str, Tensor] = {}
    unread: dict[str, tuple[str, int]] = {}
    for name, tensor in tensors.items():
        base = member.get(name)
        if base is None:
            found[name] = tensor
        elif base not in found and base not in unread:
            roles = {role: tensors[part] for role, part in groups[base].items()}
            value = acting_value(roles)
            if value is not None:
                found[base] = value
            else:
                size = sum(part.numel() for role, part in roles.items() if role.startswith(("orig", "lora")))
                unread[base] = (_reason(roles), size)
    return found, unread


def groups_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Name of a weight → role → name of the tensor that plays it, of weights that are stored in parts."""
    groups: dict[str, dict[str, str]] = {}
    for name in tensors:
        chain, role = _CHAIN.match(name), _ROLE.match(name)
        adapter = _ADAPTER.match(name)
        if adapter is not None:
            groups.setdefault(f"{adapter[1]}.lora{adapter[3]}.weight", {})[_SIDES[adapter[2]]] = name
        elif chain is not None:
            base = f"{chain[1]}.{chain[2]}" if chain[1] else chain[2]
            groups.setdefault(base, {})[chain[3]] = name
        elif role is not None:
            groups.setdefault(role[1], {})[role[2]] = name
    return {
        base: roles
        for base, roles in groups.items()
        if base not in tensors and ("orig" in roles or {"g", "v"} <= set(roles) or any(len(role) > 4 for role in roles))
    }


def acting_value(roles: Mapping[str, Tensor]) -> Tensor | None:
    """What the parts of a weight are together; None where a file does not say."""
    if any(part.layout != torch.strided or part.is_quantized for part in roles.values()):
        return None
    roles = _of_one_type(roles)
    names = set(roles)
    if not all(part.is_floating_point() or part.is_complex() for role, part in roles.items() if role != "mask"):
        return None
    if names == {"lora A", "lora B"}:
        if min(part.dim() for part in roles.values()) < 2:
            return None
        down, up = roles["lora A"].flatten(1), roles["lora B"].flatten(1)
        return up @ down if up.shape[1] == down.shape[0] else None
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


def _of_one_type(roles: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The parts in one type that all of them fit in; those of 8 bits, which nothing computes with, in float32."""
    numbers = {role: part for role, part in roles.items() if part.is_floating_point() or part.is_complex()}
    wide = {role: part.float() if part.element_size() == 1 else part for role, part in numbers.items()}
    types = {part.dtype for part in wide.values()}
    if len(types) > 1:
        common = reduce(torch.promote_types, types)
        wide = {role: part.to(common) for role, part in wide.items()}
    return {**roles, **wide}


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor | None:
    if length.dim() == 0:
        return direction * (length / direction.norm())
    one = [dim for dim, size in enumerate(length.shape) if size != 1]
    if length.dim() != direction.dim() or len(one) > 1 or any(length.shape[dim] != direction.shape[dim] for dim in one):
        return None  # two tensors of another parametrization: factors of a product, say
    over = [dim for dim, size in enumerate(length.shape) if size == 1]
    return direction * (length / torch.linalg.vector_norm(direction, dim=over, keepdim=True))


def _spectral_norm(weight: Tensor, left: Tensor, right: Tensor | None) -> Tensor | None:
    for dim in (0, 1) if weight.dim() else ():  # a transposed convolution has its outputs in the second dimension
        matrix = weight.movedim(dim, 0).flatten(1) if weight.dim() > dim else weight[:0]
        if left.dim() != 1 or matrix.shape[0] != len(left):
            continue
        if right is None:
            return weight / (matrix.mT @ left).norm()
        if right.shape == matrix.shape[1:]:
            return weight / (left @ (matrix @ right))
    return None


def _reason(roles: Mapping[str, Tensor]) -> str:
    if "lora A" in roles or "lora B" in roles:
        return "one of the two factors of a low-rank adapter, without the other or in shapes that do not fit"
    if "orig" in roles:
        return "the file has its original and not the mask or the vectors that act on it"
    return (
        "a parametrization computes it, and a file does not say how; diagnose the state dict after "
        "torch.nn.utils.parametrize.remove_parametrizations"
    )
