"""Measure the rank of representation, embedding, prediction and of every layer's weight and output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcollapse.layers.map import CONVOLUTIONS, Layer, by_tensor, layer_map, weights
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.modes import evaluating, resting
from sslcollapse.rank.spectrum import NotFiniteError, singular_values, summarize, unreadable
from sslcollapse.runs.quantities import attainable

MAX_ROWS = 4096
"""Rows a batch taken from the output of a convolution or a token layer, which has many rows a sample."""

FEATURES = ("representation", "embedding", "prediction")


@dataclass(frozen=True)
class Measurement:
    """Ranks and spectra of one network on one probe set.

    Attributes:
        ranks: ``representation``, ``embedding``, ``prediction`` (None without a predictor) and
            ``layers`` → name → ``weight`` and ``output``; each with the measures of ``summarize``, and for
            features and outputs also ``n`` and the centred ones.
        singular: name → singular values, descending (un-centred for features and outputs).
    """

    ranks: dict[str, Any]
    singular: dict[str, np.ndarray]

    def metrics(self) -> dict[str, float]:
        """Flat record: ``rank/representation/effective_rank``, ``rank/layers/convs.0/weight/stable_rank``, ..."""
        flat: dict[str, float] = {}
        for name in FEATURES:
            if self.ranks[name] is not None:
                flat |= {f"rank/{name}/{key}": value for key, value in self.ranks[name].items()}
        for name, parts in self.ranks["layers"].items():
            for part, values in parts.items():
                flat |= {f"rank/layers/{name}/{part}/{key}": value for key, value in values.items()}
        return flat

    def spectra(self) -> dict[str, np.ndarray]:
        """Arrays for ``np.savez``: ``representation``, ``weight/convs.0``, ``output/convs.0``, ..., and ``n``."""
        return {**self.singular, "n": np.array(self.ranks["representation"]["n"])}


def measure(
    encoder: nn.Module,
    views: Iterable[Any],
    *,
    projector: nn.Module | None = None,
    predictor: nn.Module | None = None,
    rows: Tensor | None = None,
) -> Measurement:
    """Run the online network in eval mode on un-augmented views and measure every rank.

    The network is left as it was found: training flag, buffers and hooks. Without a projector the embedding is
    the representation. Outputs of convolutions [B, C, H, W] and of token layers [B, T, C] count as rows of C
    channels, at most ``MAX_ROWS`` evenly spaced ones a batch.

    Args:
        encoder: one view in, [N, d] out.
        views: encoder inputs.
        projector: head that makes the embedding.
        predictor: head that makes the prediction.
        rows: numbers of the samples that count, ascending over all views; None for all. Of an output that has not one
            row a sample all count.

    Raises:
        NotFiniteError: a feature, weight or output has NaN or infinite entries; named.
    """
    heads = {name: head for name, head in (("projector", projector), ("predictor", predictor)) if head is not None}
    found = _all_layers(encoder, heads)
    streams: dict[str, StreamingCovariance] = {}
    held: list[tuple[Layer, Any]] | None = None if rows is None else []  # outputs of one view
    start = 0
    with evaluating(encoder, *heads.values()), _output_hooks(found, streams, held):
        for view in views:
            h = encoder(view)
            z = h if projector is None else projector(h)
            p = None if predictor is None else predictor(z)
            features = {"representation": h, "embedding": None if projector is None else z, "prediction": p}
            own = None if rows is None else _own_rows(rows, start, h)
            for name, feature in features.items():
                if feature is not None:
                    _stream(streams, name, feature if own is None else feature[own])
            for layer, output in held or ():
                _stream_output(streams, layer, output, len(h), own)
            if held is not None:
                held.clear()
            start += len(h)
    singular: dict[str, np.ndarray] = {}
    ranks: dict[str, Any] = {name: _rank_of(streams.get(name), name, singular) for name in FEATURES}
    if projector is None:
        ranks["embedding"] = ranks["representation"]
    ranks["layers"] = {}
    for group in by_tensor(found):  # one after the other: a network may not fit twice
        with resting(next(iter(group.values())).module):
            matrices = weights(group)
        for name, matrix in matrices.items():
            with _named(f"weight/{name}"):
                sigma = singular_values(matrix)
            singular[f"weight/{name}"] = sigma.cpu().numpy()
            ranks["layers"][name] = {"weight": summarize(sigma, min(group[name].shape))}
            output = _rank_of(streams.get(f"output/{name}"), f"output/{name}", singular)
            if output is not None:
                ranks["layers"][name]["output"] = output
    return Measurement(ranks, singular)


def represent(encoder: nn.Module, views: Iterable[Any]) -> Tensor:
    """Representations [N, d] of un-augmented views in eval mode, float32, on their device; the encoder is unchanged."""
    with evaluating(encoder):
        return torch.cat([encoder(view).float() for view in views])


def low_rank_warnings(measurement: Measurement, threshold: float) -> list[str]:
    """One line for each representation, prediction, weight or output below ``threshold`` × its attainable rank."""
    entries = [
        (name, ranks, ranks["attainable"])
        for name in ("representation", "prediction")
        if (ranks := measurement.ranks[name])
    ]
    for name, parts in measurement.ranks["layers"].items():
        entries += [(f"{name} {part}", ranks, attainable(parts, part)) for part, ranks in parts.items()]
    return [
        f"{name}: effective rank {ranks['effective_rank']:.1f} is below {threshold:g} of the attainable {limit}; "
        "rank is lost here"
        for name, ranks, limit in entries
        if ranks["effective_rank"] < threshold * limit
    ]


def activation_rows(output: Tensor, max_rows: int | None = None, channels: int | None = None) -> Tensor:
    """Rows of channels [n, C] of a layer output: [N, C], [B, C, H, W] or [B, T, C], at most so many evenly spaced ones.

    Args:
        output: of a layer.
        max_rows: by default all rows of [N, C] and ``MAX_ROWS`` of others.
        channels: dimension of the channels; by default 1 where there are four dimensions or more, else the last.
    """
    if channels is None:
        channels = 1 if output.dim() >= 4 else -1
    if max_rows is None:
        max_rows = MAX_ROWS if output.dim() != 2 else output.shape[0]
    last = output.movedim(channels, -1)
    shape, width = last.shape[:-1], last.shape[-1]
    if shape.numel() <= max_rows:
        return last.reshape(shape.numel(), width)
    chosen = torch.linspace(0, shape.numel() - 1, max_rows, device=output.device, dtype=torch.float64)
    return last[torch.unravel_index(chosen.round().long(), shape)]  # before flattening, which would copy everything


def output_rows(layer: Layer, output: Any, max_rows: int | None = None) -> Tensor | None:
    """[n, out] of what a module put out for one of its layers; None where that is not the layer's product.

    A Linear has its channels last, a convolution before its spatial dimensions. ``nn.MultiheadAttention`` and a module
    with a stack of matrices show the product of none of them.
    """
    if isinstance(output, tuple):
        output = output[0]
    if isinstance(output, Tensor) and not _is_plain(output):
        return None
    if layer.tensor != "weight" or layer.item is not None:
        return None
    if not isinstance(output, Tensor) or output.layout != torch.strided or output.dim() == 0:
        return None
    channels = 1 if output.dim() >= 4 else -1
    if isinstance(layer.module, nn.Linear):
        channels = -1
    elif isinstance(layer.module, CONVOLUTIONS):
        channels = output.dim() - 1 - len(layer.module.kernel_size)
    own = layer.channels(output.detach(), channels)
    return None if own is None else activation_rows(own, max_rows, channels)


def unread(output: Any) -> str:
    """Why an output has no rows, for messages."""
    if isinstance(output, tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        return f"it is no tensor but {type(output).__name__}"
    if torch._C._functorch.is_functorch_wrapped_tensor(output):
        return "it is inside torch.func (grad, vmap and the like), where it has no values of its own"
    if output.is_nested:
        return "it is nested; nn.TransformerEncoder makes none with enable_nested_tensor=False"
    if hasattr(output, "full_tensor"):
        return "it is sharded (DTensor); measure a module that puts out plain tensors"
    reason = unreadable(output)
    return f"it has the shape {tuple(output.shape)} and the type {output.dtype}" if reason is None else f"it {reason}"


def _is_plain(output: Tensor) -> bool:
    """Whether a tensor has values of its own here: not nested, sharded, on the meta device or inside ``torch.func``."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(output)
    return not (wrapped or output.is_nested or output.is_meta or hasattr(output, "full_tensor"))


def _all_layers(encoder: nn.Module, heads: Mapping[str, nn.Module]) -> dict[str, Layer]:
    layers = layer_map(encoder)
    for head, module in heads.items():
        for name, layer in layer_map(module).items():
            layers[f"{head}.{name}"] = replace(layer, name=f"{head}.{name}")
    return layers


def _rank_of(
    stream: StreamingCovariance | None, name: str, singular: dict[str, np.ndarray]
) -> dict[str, float | int] | None:
    if stream is None:
        return None
    with _named(name):
        sigma = stream.singular_values(centred=False)
    singular[name] = sigma.cpu().numpy()
    centred = summarize(stream.singular_values(centred=True), min(stream.n - 1, stream.dim))
    return {
        **summarize(sigma, min(stream.n, stream.dim)),
        "n": stream.n,
        "effective_rank_centred": centred["effective_rank"],
        "participation_ratio_centred": centred["participation_ratio"],
        "attainable_centred": centred["attainable"],
    }


def _stream(streams: dict[str, StreamingCovariance], name: str, output: Tensor) -> None:
    rows = activation_rows(output.detach())
    if not len(rows):
        return
    if name not in streams:
        streams[name] = StreamingCovariance(rows.shape[1], rows.device)
    streams[name].update(rows)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put a name before the error of a spectrum."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{name}: {error}") from None


def _own_rows(rows: Tensor, start: int, h: Tensor) -> Tensor:
    """Of the samples that count those of one view, whose first is number ``start``, as numbers within it."""
    return rows[(rows >= start) & (rows < start + len(h))].to(h.device) - start


def _stream_output(
    streams: dict[str, StreamingCovariance], layer: Layer, output: Any, samples: int = 0, own: Tensor | None = None
) -> None:
    """Add what a module put out for a layer; where it has one row a sample, those that count."""
    if own is not None and isinstance(output, Tensor) and output.dim() and len(output) == samples:
        output = output[own]
    rows = output_rows(layer, output)
    if rows is not None:
        _stream(streams, f"output/{layer.name}", rows)


@contextmanager
def _output_hooks(
    layers: Mapping[str, Layer],
    streams: dict[str, StreamingCovariance],
    held: list[tuple[Layer, Any]] | None = None,
) -> Iterator[None]:
    """Add the outputs of layers to streams as they come, or, where there is a list to hold them, put them there."""

    def record(layer: Layer) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if held is None:
                _stream_output(streams, layer, output)
                return
            if isinstance(output, tuple) and output:
                output = output[0]
            # A copy, since an activation may work in place.
            held.append((layer, output.clone() if isinstance(output, Tensor) and _is_plain(output) else output))

        return hook

    handles = [layer.module.register_forward_hook(record(layer)) for layer in layers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
