"""The layer map: every weight matrix of a network by name, in order of depth.

Coefficients, spectra, tables and ablation grids are all indexed by the names given here. The rules:

* A layer is a matrix that a module multiplies with: the weight of ``nn.Linear``, of PyTorch Geometric's ``Linear``, of
  a convolution (as [out, in·kh·kw], which is not the operator norm's matrix), of ``nn.MultiheadAttention``, or of any
  module with an ``effective_weight()`` method that returns [out, in] and a raw parameter called ``weight``. It is
  the matrix as it acts: after parametrizations, pruning masks, weight standardisation and low-rank adapters.
* What a module multiplies with is known by the class whose ``forward`` runs (``effective.py``). A subclass with a
  ``forward`` of its own is no layer; ``layer_coverage`` names it with the reason, as it does recurrent, scripted and
  quantised modules and parameters whose use is not known.
* Vectors (normalisations, also those of several dimensions), embeddings and transposed convolutions are not layers.
* A grouped convolution is one layer a group (``conv.group0``, ...). A depthwise one, with one output channel a
  group, has only vectors and is no layer.
* A stack of matrices is one layer a matrix, with a number after the parameter's name (``experts.weight.0``, ...): the
  relations of ``RGCNConv``, the outputs of ``nn.Bilinear``, experts, and other parameters [n, out, in] whose name or
  bias shows that they are stacks.
* A fused query-key-value map is three layers (``attn.qkv.q``, ``.k``, ``.v``) where the class that uses it is known
  (``fused.py``), or where a module says how it is cut: ``fused_maps = {"qkv": {"q": 64, "k": 16, "v": 16}}``, rows a
  part. Else it is one layer.
* A parameter that several modules share appears once, under the first name.
* Depth counts modules along the main path from 0, in the order of registration; the parts of one module
  share its depth. A module tree does not say what runs in parallel: only shortcuts are known to.
* A shortcut is a child that its parent lists in an attribute ``shortcuts`` (a tuple of child names), or one
  called ``downsample``, ``shortcut``, ``skip`` or ``residual`` that reads as many channels as the first layer
  of the parent's other children (else it comes before or after them, as in a ConvNeXt stage). All its layers
  have the depth of the last main-path layer of the same parent. Where a shortcut is a ``ModuleList``, its
  item k has the depth of the last layer in item k of the parent's first main-path ``ModuleList`` that has
  layers. A parent without main-path layers has no shortcuts.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from torch import nn

from sslcollapse.core.errors import suggest
from sslcollapse.layers.effective import CONVOLUTIONS as CONVOLUTIONS
from sslcollapse.layers.layer import HEADS as HEADS
from sslcollapse.layers.layer import Coverage
from sslcollapse.layers.layer import Layer as Layer
from sslcollapse.layers.layer import LayerError as LayerError
from sslcollapse.layers.layer import by_tensor as by_tensor
from sslcollapse.layers.layer import weights as weights
from sslcollapse.layers.walk import Walk


def layer_map(module: nn.Module) -> dict[str, Layer]:
    """Name → layer of every weight matrix in a network, ordered by depth; empty where there is none.

    Reads the module tree only: it computes nothing and changes nothing. A network that is itself one Linear
    or convolution has a layer called ``weight``. What is no layer is named by ``layer_coverage``.

    Raises:
        LayerError: a weight that is not initialised yet (lazy modules).
    """
    return _walked(module).ordered()


def layer_coverage(module: nn.Module) -> Coverage:
    """How much of a network ``layer_map`` holds, and what it leaves out, by name and with the reason.

    Raises:
        LayerError: as ``layer_map``.
    """
    walk = _walked(module)
    total = walk.packed + sum(parameter.numel() for parameter in module.parameters())
    return Coverage(total, walk.covered, tuple(walk.uncovered))


def _walked(module: nn.Module) -> Walk:
    if not isinstance(module, nn.Module):
        raise LayerError(f"layer_map needs a torch.nn.Module, got {type(module).__name__}")
    walk = Walk()
    walk.visit(module, "")
    return walk


def select(layers: Mapping[str, Layer], pattern: str) -> dict[str, Layer]:
    """The layer of that exact name, else all layers that match the glob.

    Raises:
        LayerError: where nothing matches; the message suggests the nearest name and lists all.
    """
    names = [pattern] if pattern in layers else fnmatch.filter(layers, pattern)
    if not names:
        near, known = suggest(pattern, list(layers)), ", ".join(layers) or "none"
        raise LayerError(f"{pattern!r} matches no layer{near} (layers: {known})")
    return {name: layers[name] for name in names}
