"""What a trained encoder is held against: random weights of the same spectrum, and the data without any encoder."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import made_by_rank_0, meeting, rank
from sslcollapse.core.errors import WriteError
from sslcollapse.core.files import PACKAGE, write_atomic
from sslcollapse.core.registry import PROBES
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import LazyViews, Partwise, Point, ProbeSet
from sslcollapse.layers.map import LayerError, layer_map
from sslcollapse.nn.init import random_with_spectrum
from sslcollapse.probes.evaluate import rows_read, run_probes
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.measure import represent
from sslcollapse.rank.record import rank_of
from sslcollapse.runs.quantities import SAME_SPECTRUM, UNTRAINED
from sslcollapse.training.features import REPRESENTING, probe_features

LARGEST = 2**26
"""Features of more numbers are not made in place of representations after training; ``evaluate`` makes them."""

WIDEST = 2048
"""Features of more dimensions have no rank measured, which takes time with the cube of them."""

FOLDER = ".baselines"
"""Below the folder of all runs: what probes make of features that no encoder has made, by the digest of both."""


@dataclass
class Baselines:
    """What was found.

    Attributes:
        evaluation: baseline → probe → metrics, in the form of ``untrained``.
        ranks: baseline, and ``untrained``, → ``representation`` → measures of its rank.
        notes: one line for each baseline that there is not, with the reason.
    """

    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """What baselines are measured with; the same on every rank, but that rank 0 alone has inputs.

    Args:
        recipe: resolved.
        domain: loaded.
        probes: name → probe.
        probe_set: labels and splits; on rank 0 also the inputs.
        device: of the inputs.
        cache: folder of all runs, which keeps what does not depend on a run; None keeps nothing.
        largest: features of more numbers are left out; None leaves none out.
    """

    recipe: Mapping[str, Any]
    domain: Any
    probes: Mapping[str, Any]
    probe_set: ProbeSet
    device: torch.device
    cache: Path | None = None
    largest: int | None = LARGEST

    def offered(self) -> dict[str, Callable[[Any], Tensor | None]]:
        """The domain's baselines; a domain need not have the method."""
        method = getattr(self.domain, "baselines", None)
        return {} if method is None else dict(method())

    def measured(self, encode: Callable[[Iterable[Any]], Tensor]) -> dict[str, Any]:
        """Ranks of what comes out of the inputs that ranks are measured on."""
        views, rows = self.probe_set.measured(self.recipe["monitor"].get("samples"))
        if rows is not None and self.probe_set.partwise:
            views, rows = self.probe_set.only(rows), None
        h = encode(views)
        return {"representation": ranks_of(h if rows is None else h[rows.to(h.device)])}


def measure_baselines(
    bench: Bench,
    trained: nn.Module,
    untrained: nn.Module,
    found: Baselines,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Run the probes on every baseline, and measure ranks; every rank calls.

    Args:
        bench: what they are measured with.
        trained: the encoder after training, with plain weights.
        untrained: the one before it.
        found: takes what is found, one baseline after the other.
        progress: called with the name of a probe after each split of this rank.
    """
    with meeting("measuring baselines") as together:
        if rank() == 0:
            found.ranks[UNTRAINED] = bench.measured(partial(represent, untrained))
            twin: Any = None
            try:
                twin = same_spectrum(trained, bench.probe_set.measured(None)[0], bench.recipe["seed"])
                found.ranks[SAME_SPECTRUM] = bench.measured(partial(represent, twin))
            except LayerError as error:
                found.notes.append(f"no random weights of the same spectrum: {error}")
            together.result = twin is not None
    if together.results[0]:
        features, rows = probe_features(
            REPRESENTING, lambda views: represent(twin, views), bench.probes, bench.probe_set, bench.device
        )
        found.evaluation[SAME_SPECTRUM], _ = run_probes(
            bench.probes, features, bench.probe_set, rows=rows, shared=True, progress=progress
        )
    for name, function in bench.offered().items():
        _without_encoder(bench, name, function, found, progress)


def _without_encoder(
    bench: Bench,
    name: str,
    function: Callable[[Any], Tensor | None],
    found: Baselines,
    progress: Callable[[str], None] | None,
) -> None:
    with meeting("measuring baselines") as together:
        features, path, known = None, None, None
        if rank() == 0:
            features, why = _features(bench, function)
            if features is None:
                found.notes.append(f"no baseline {name}: {why}")
            else:
                path = _place(bench, features)
                known = _kept(path, bench.probes)
            together.result = {"evaluated": features is not None, "known": known is not None}
    if not together.results[0]["evaluated"]:
        return
    if together.results[0]["known"]:
        entry = known or {}
    else:
        features = made_by_rank_0("computing features", lambda: features, bench.device)  # type: ignore[arg-type,return-value]
        rows = rows_read(bench.probes, bench.probe_set)
        evaluation, _ = run_probes(
            bench.probes,
            features,
            bench.probe_set,
            rows=rows if rows is not None and len(features) == len(rows) else None,
            shared=True,
            progress=progress,
        )
        entry = {"evaluation": evaluation, "rank": {}}
        with meeting("measuring baselines"):  # what fails on rank 0 must not send it on alone
            if rank() == 0:
                if features.shape[1] <= WIDEST:
                    entry["rank"] = bench.measured(partial(_joined, function))
                if path is not None:
                    _keep(path, entry)
    if rank() == 0:
        found.evaluation[name] = entry["evaluation"]
        if entry["rank"]:
            found.ranks[name] = entry["rank"]


def ranks_of(features: Tensor) -> dict[str, Any]:
    """Ranks of features [N, d], un-centred and centred, as ``result.json`` has those of the representation."""
    stream = StreamingCovariance(features.shape[1], features.device)
    stream.update(features)
    row, _ = rank_of(
        Point("feature", "representation"),
        (features.shape[1],),
        lambda: stream.singular_values(centred=False),
        n=stream.n,
        centred=lambda: stream.singular_values(centred=True),
    )
    return row.measures()


@torch.no_grad()
def same_spectrum(encoder: nn.Module, views: Iterable[Any], seed: int) -> nn.Module:
    """A copy of an encoder, the weight W = U S Vᵀ of every layer of its layer map replaced by U′ S V′ᵀ.

    U′ and V′ are independent and uniformly distributed (Haar), drawn for layer k, counted from 0 in the order of the
    map, from the stream ("same spectrum", seed, k). Everything else is as trained: biases, gains and biases of
    normalisations, activations, embeddings and other parameters that are no layer. Running statistics of BatchNorm are
    measured again on the given inputs, since those of other weights do not normalise these.

    Args:
        encoder: with plain weights.
        views: un-augmented inputs.
        seed: of the run.

    Raises:
        LayerError: it has no layers, or one whose weight cannot be set, such as one that is standardised.
    """
    from sslcollapse.rank.diagnose.diagnosis import with_statistics

    twin = copy.deepcopy(encoder).eval()
    layers = layer_map(twin)
    if not layers:
        raise LayerError("the encoder has no layers")
    for k, (name, layer) in enumerate(layers.items()):
        sigma = torch.linalg.svdvals(layer.weight().double().cpu())
        drawn = generator(torch.device("cpu"), "same spectrum", seed, k)
        layer.assign(random_with_spectrum(sigma, layer.shape, drawn).to(layer.parameter))
        acting = torch.linalg.svdvals(layer.weight().double().cpu())
        if not torch.allclose(acting, sigma, rtol=1e-3, atol=1e-3 * float(sigma.max())):
            raise LayerError(
                f"layer {name!r}: its weight is computed from what is stored, so that its spectrum cannot be set"
            )
    return with_statistics(twin, views)


@torch.no_grad()
def _joined(function: Callable[[Any], Tensor | None], views: Iterable[Any]) -> Tensor:
    """[N, d] of all views, float32."""
    made = [features.float() for view in views if (features := function(view)) is not None]
    return made[0] if len(made) == 1 else torch.cat(made)


@torch.no_grad()
def _features(bench: Bench, function: Callable[[Any], Tensor | None]) -> tuple[Tensor | None, str]:
    """What a baseline gives a probe, or why it gives nothing."""
    wanted = rows_read(bench.probes, bench.probe_set) if bench.probe_set.partwise else None
    views, labels = bench.probe_set.only(wanted), len(bench.probe_set.labels if wanted is None else wanted)
    one = next(iter(views.subset(2) if isinstance(views, LazyViews) else views))
    first = function(one.only(torch.arange(1)) if isinstance(one, Partwise) else one)
    if first is None:
        return None, "the features of these inputs are too many to be made dense"
    if bench.largest is not None and labels * first.shape[1] > bench.largest:
        return None, (
            f"{labels:,} × {first.shape[1]:,} numbers are many for a run to wait for; 'sslcollapse evaluate' with the "
            "run's folder adds it"
        )
    return _joined(function, views), ""


def _place(bench: Bench, features: Tensor) -> Path | None:
    """The file of what these probes make of these features; None where that may not be kept.

    The digest is of all that decides the result: features, labels, splits, the probes and their code, and libraries.
    """
    specs = {name: bench.recipe["evaluate"][name] for name in bench.probes}
    if bench.cache is None or any(PROBES.origin(spec["type"]) is not None for spec in specs.values()):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for source in sorted([*(PACKAGE / "probes").glob("*.py"), *(PACKAGE / "rank").glob("*.py")]):
        digest.update(source.read_bytes())
    made_by = [torch.__version__, version("scikit-learn"), features.device.type]
    settings = [specs, bench.recipe["monitor"].get("samples"), made_by]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for tensor in (features, bench.probe_set.labels):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    for name, splits in sorted(bench.probe_set.splits.items()):
        for split in splits:
            for part in (split.train, split.validation, split.test):
                digest.update(name.encode() + np.ascontiguousarray(part).tobytes())
    return bench.cache / FOLDER / f"{digest.hexdigest()}.json"


def _kept(path: Path | None, probes: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run has kept; None where there is nothing that can be used."""
    try:
        entry: Any = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
        usable = isinstance(entry, dict) and entry["evaluation"].keys() == probes.keys()
        return entry if usable and isinstance(entry["rank"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _keep(path: Path, entry: Mapping[str, Any]) -> None:
    """Keep it for the next run; where that cannot be written nothing is lost."""
    with suppress(OSError, WriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(entry) + "\n").encode())
