"""A plug-in: sentences as lists of words, with a kind of data set, an encoder and an objective of its own."""

import random
import zlib
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from sslcollapse import REGISTRIES, AtLeast, Component, Objective, Probability, Registry, SampleDomain, Samples, Width

WORD_DATASETS = REGISTRIES.add(Registry("word_dataset", {"pets": "word_lists:Pets"}, requires=("load",)))
Dataset = Annotated[dict[str, Any], Component("word_dataset")]
TOPICS = [["cat", "purr", "milk", "claw", "the", "a"], ["dog", "bark", "bone", "tail", "the", "a"]]


class Pets:
    """Made-up sentences about cats and dogs."""

    def __init__(self, data_root: Path, *, sentences: Annotated[int, AtLeast(20)] = 80) -> None:
        self.sentences = sentences

    def load(self) -> tuple[list[list[str]], list[int]]:
        rng, labels = random.Random(0), [row % 2 for row in range(self.sentences)]
        return [rng.choices(TOPICS[label], k=8) for label in labels], labels


class WordLists(SampleDomain):
    """Sentences as lists of words; a view leaves some words out."""

    kind, in_shape, num_classes = "words", (8,), 2

    def __init__(self, data_root: Path, *, dataset: Dataset, batch_size: Width = 16, deletion: Probability = 0.3):
        super().__init__(data_root, batch_size=batch_size)
        self.source, self.deletion = WORD_DATASETS.build(dataset, data_root), deletion

    def read(self) -> Samples:
        return Samples(*self.source.load())

    def augment(self, batch: list[list[str]], rng: torch.Generator) -> list[dict[str, Any]]:
        return self.plain([[w for w in words if torch.rand((), generator=rng) >= self.deletion] for words in batch])

    def plain(self, batch: list[list[str]]) -> list[dict[str, Any]]:
        return [{"words": words} for words in batch]

    def show(self, view: list[dict[str, Any]]) -> list[str]:
        return [" ".join(sentence["words"]) for sentence in view]


class WordBag(nn.Module):
    """Mean of the vectors of hashed words, and a Linear."""

    reads = ("words",)

    def __init__(self, in_shape: Any, *, buckets: Width = 64, out_dim: Width = 6) -> None:
        super().__init__()
        self.bag, self.linear, self.out_dim = nn.EmbeddingBag(buckets, 12), nn.Linear(12, out_dim), out_dim

    def reset_parameters(self) -> None:
        self.bag.reset_parameters()
        self.linear.reset_parameters()

    def forward(self, view: list[dict[str, Any]]) -> Tensor:
        device, buckets = self.linear.weight.device, self.bag.num_embeddings
        ids = [zlib.crc32(word.encode()) % buckets for sentence in view for word in sentence["words"]]
        starts = torch.tensor([0, *(len(sentence["words"]) for sentence in view)], device=device).cumsum(0)[:-1]
        return self.linear(self.bag(torch.tensor(ids, device=device, dtype=torch.long), starts))


class Agree(Objective):
    """Two views agree, more and more; the features keep their variance."""

    couples_batch = True

    def forward(self, online: Any, target: Any, gather: Any) -> dict[str, Tensor]:
        a, b = (gather(branch.z) for branch in online)
        apart, spread = (a - b).square().mean(), (1 - torch.cat([a, b]).std(0)).relu().mean()
        return {"apart": (1 + self.step / self.total_steps) * apart, "spread": spread}
