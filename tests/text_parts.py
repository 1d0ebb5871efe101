"""A third domain as a plug-in would have it: sentences as token ids, which are neither images nor graphs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sslcollapse import (
    DOMAINS,
    ENCODERS,
    OBJECTIVES,
    PROBES,
    REGULARIZERS,
    Coefficient,
    FeaturePenalty,
    Objective,
    ProbeResult,
    ProbeSet,
    SampleDomain,
    Samples,
    Split,
    WeightPenalty,
)

WORDS, LENGTH, SENTENCES = 40, 12, 90


class Tokens(NamedTuple):
    """Sentences [B, T] and how many words each has [B]."""

    ids: Tensor
    lengths: Tensor


class TextDomain(SampleDomain):
    """Sentences of two topics."""

    kind, in_shape, num_classes = "sequence", (LENGTH,), 2

    def __init__(self, data_root: Path, *, batch_size: int = 32, one_topic: bool = False) -> None:
        super().__init__(data_root, batch_size=batch_size)
        self.one_topic = one_topic

    def read(self) -> Samples:
        rng, rows = np.random.default_rng(0), np.arange(SENTENCES)
        topic = np.arange(SENTENCES) % 2
        ids = 1 + topic[:, None] * WORDS // 2 + rng.integers(0, WORDS // 2 - 1, (SENTENCES, LENGTH))
        splits = {"public": [Split(*np.array_split(rows, 3))]}
        return Samples(ids, np.zeros(SENTENCES) if self.one_topic else topic, splits, pretrain=rows)

    def augment(self, batch: Tensor, rng: torch.Generator) -> Tokens:
        return self.plain(torch.where(torch.rand(batch.shape, generator=rng) < 0.7, batch, 0))

    def plain(self, batch: Tensor) -> Tokens:
        return Tokens(batch, torch.full((len(batch),), LENGTH))


class UnmeasurableText(TextDomain):
    """Fails at what only the very end of a run asks for."""

    def measurable(self, view: Any) -> Tensor | None:
        raise RuntimeError("[no] rows here")


class BagOfWords(nn.Module):
    """Mean of word vectors, and a Linear."""

    reads = ("sequence",)

    def __init__(self, in_shape: Any, *, out_dim: int = 8, pool: bool = True) -> None:
        super().__init__()
        self.out_dim, self.pool = out_dim, pool
        self.words, self.linear = nn.Embedding(WORDS + 1, 16), nn.Linear(16, out_dim)

    def reset_parameters(self) -> None:
        self.words.reset_parameters()
        self.linear.reset_parameters()

    def forward(self, view: Tokens) -> Tensor:
        words = self.words(view.ids)
        return self.linear(words.sum(1) / view.lengths[:, None] if self.pool else words)


class NearestMean:
    """The nearest class mean; it has what the guide asks for and no more. Fails without the file ``needs``."""

    def __init__(self, *, needs: str | None = None) -> None:
        self.needs = needs

    def __call__(self, features: Tensor, probe_set: ProbeSet) -> ProbeResult:
        if self.needs is not None and not Path(self.needs).exists():
            raise KeyError("margin")
        (split,) = probe_set.splits["public"]
        train, known = features[split.train], probe_set.labels[split.train]
        means = torch.stack([train[known == c].mean(0) for c in range(probe_set.num_classes)])
        hits = torch.cdist(features, means).argmin(1) == probe_set.labels
        test, validation = (float(hits[rows].double().mean()) for rows in (split.test, split.validation))
        return ProbeResult("accuracy", [test], [validation], "means", (split,))


def text_recipe(name: str, **parts: Any) -> dict[str, Any]:
    """An own objective, penalty, encoder, domain and probe, four steps."""
    return (
        dict(
            name=name,
            domain=dict(type="text"),
            encoder=dict(type="bag_of_words"),
            objective=dict(type="agree"),
            regularizers=dict(small=dict(type="small")),
            optim=dict(type="adamw", lr=1e-2),
            train=dict(steps=4, log_every=2),
            monitor=dict(every=0),
            evaluate=dict(means=dict(type="nearest_mean"), knn=dict(type="knn", metric="accuracy")),
        )
        | parts
    )


def register_evaluation_parts() -> None:
    """What evaluation needs: domain, encoder, probe."""
    DOMAINS.register("text")(TextDomain)
    DOMAINS.register("unmeasurable_text")(UnmeasurableText)
    ENCODERS.register("bag_of_words")(BagOfWords)
    PROBES.register("nearest_mean")(NearestMean)


def register() -> None:
    """Everything; objective and penalties are for training only."""
    register_evaluation_parts()
    OBJECTIVES.register("agree")(Agree)
    REGULARIZERS.register("small")(Small)
    REGULARIZERS.register("pairs")(Pairs)


class Agree(Objective):
    """Representations of two views agree, and do not vanish."""

    couples_batch = True

    def forward(self, online: Any, target: Any, gather: Any) -> dict[str, Tensor]:
        a, b = online
        return {"agree": (a.h - b.h).square().mean() + (a.h.std(0) - 1).square().mean()}


class Small(WeightPenalty):
    """‖W‖² of every layer."""

    def __init__(self, *, coefficient: float = 1e-3, networks: tuple[str, ...] = ("encoder",)) -> None:
        super().__init__(coefficient, networks)

    def forward(self, layers: Any) -> dict[str, Tensor]:
        return {name: layer.weight().square().sum() for name, layer in layers.items()}


class Pairs(FeaturePenalty):
    """Reads no features at all."""

    def __init__(self, *, coefficient: Coefficient = 1.0, on: tuple[str, ...] = ("representation",)) -> None:
        super().__init__(coefficient, on)

    def forward(self, features: Any, gather: Any, step: int = 0) -> Tensor:
        raise ValueError("pairs of tokens are needed")
