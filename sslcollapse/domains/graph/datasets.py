"""Graph datasets through PyTorch Geometric's own loaders.

Edges are as the loaders give them: undirected (both directions listed, no duplicates) for all families but
WebKB, which stays directed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.data import Graph, GraphDataset, make_graph, split_from_masks
from sslcollapse.domains.graph.formats import PARTS, read_npz, read_part, read_planetoid
from sslcollapse.domains.graph.stored import Sizes, StoredGraphs, check_name, in_memory
from sslcollapse.nn.sparse import import_geometric


class _LoadedGraphs(StoredGraphs):
    """One graph through a loader of PyTorch Geometric, with the public splits of its masks if it has any."""

    def __init__(
        self,
        data_root: Path,
        family: str,
        raw: Sequence[str],
        sizes: Sizes,
        *,
        normalize: bool,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_root, family, raw, sizes, name)
        self.normalize = normalize
        self._class_name = family
        self._options = options if name is None else {"name": name, **options}

    def fetch(self, root: Path) -> None:
        """Download with the loader."""
        loader = self.loader(root)
        Path(loader.raw_dir).mkdir(parents=True, exist_ok=True)
        loader.download()

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw files with the loader."""
        loader = self.loader(root)
        loader.process()
        data = loader.parsed[0][0]
        graph = make_graph(data.x, data.edge_index, data.y, name=self.title, normalize=self.normalize)
        masks = (data.train_mask, data.val_mask, data.test_mask)
        splits = {"public": split_from_masks(*masks, graph.num_nodes, self.title)}
        return GraphDataset(self.title, (graph,), int(graph.y.max()) + 1, splits)

    def loader(self, root: Path) -> Any:
        """The loader on the raw files below ``root``; makes no ``processed/`` folder."""
        return in_memory(getattr(import_geometric("datasets"), self._class_name))(str(root), **self._options)


class Planetoid(_LoadedGraphs):
    """Citation graphs Cora, CiteSeer and PubMed with the public split.

    Args:
        data_root: the data root; files in ``graph/Planetoid/<name>/raw``.
        name: which of them.
        normalize_features: divide each node's features by their sum.

    Source: Yang et al. 2016, arXiv 1603.08861.
    """

    SIZES: ClassVar = {
        "Cora": Sizes(2708, 10556, 1433, 7, (140, 500, 1000)),
        "CiteSeer": Sizes(3327, 9104, 3703, 6, (120, 500, 1000)),
        "PubMed": Sizes(19717, 88648, 500, 3, (60, 500, 1000)),
    }

    def __init__(
        self, data_root: Path, *, name: Literal["Cora", "CiteSeer", "PubMed"], normalize_features: bool = True
    ) -> None:
        check_name(name, list(self.SIZES), "Planetoid")
        self._name = name
        raw = [f"{name}/raw/ind.{name.lower()}.{part}" for part in PARTS]
        super().__init__(data_root, "Planetoid", raw, self.SIZES[name], name=name, normalize=normalize_features)

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw files, which are pickles, without running anything of them."""
        folder = self.files_below(root)[0].parent
        x, edge_index, y, masks = read_planetoid(folder, self._name.lower(), self.sizes)
        graph = make_graph(x, edge_index, y, name=self.title, normalize=self.normalize)
        train, validation, test = masks
        splits = {"public": split_from_masks(train, validation, test, graph.num_nodes, self.title)}
        return GraphDataset(self.title, (graph,), int(y.max()) + 1, splits)

    def read_alone(self, file: Path) -> None:
        """Read one raw file."""
        read_part(file)


class _NpzGraphs(_LoadedGraphs):
    """One graph in an npz file, downloaded by its loader and read without a dense [N, F] array on the way."""

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw file."""
        x, edge_index, y = read_npz(self.files_below(root)[0])
        graph = make_graph(x, edge_index, y, name=self.title, normalize=self.normalize)
        return GraphDataset(self.title, (graph,), int(y.max()) + 1, {})


class CitationFull(_NpzGraphs):
    """Full citation graphs: Cora, Cora_ML, CiteSeer, DBLP, PubMed; no public split.

    Args:
        data_root: the data root; files in ``graph/CitationFull/<name in lower case>/raw``.
        name: which of them.
        normalize_features: divide each node's features by their sum.

    Source: Bojchevski & Günnemann 2018, arXiv 1707.03815.
    """

    SIZES: ClassVar = {
        "Cora": Sizes(19793, 126842, 8710, 70),
        "Cora_ML": Sizes(2995, 16316, 2879, 7),
        "CiteSeer": Sizes(4230, 10674, 602, 6),
        "DBLP": Sizes(17716, 105734, 1639, 4),
        "PubMed": Sizes(19717, 88648, 500, 3),
    }

    def __init__(
        self,
        data_root: Path,
        *,
        name: Literal["Cora", "Cora_ML", "CiteSeer", "DBLP", "PubMed"],
        normalize_features: bool = True,
    ) -> None:
        check_name(name, list(self.SIZES), "CitationFull")
        raw = f"{name.lower()}/raw/{name.lower()}.npz"
        super().__init__(data_root, "CitationFull", [raw], self.SIZES[name], name=name, normalize=normalize_features)


class Amazon(_NpzGraphs):
    """Amazon co-purchase graphs Computers and Photo; no public split.

    Args:
        data_root: the data root; files in ``graph/Amazon/<name>/raw``.
        name: which of them.
        normalize_features: divide each node's features by their sum.

    Source: Shchur et al. 2018, arXiv 1811.05868.
    """

    SIZES: ClassVar = {"Computers": Sizes(13752, 491722, 767, 10), "Photo": Sizes(7650, 238162, 745, 8)}

    def __init__(
        self, data_root: Path, *, name: Literal["Computers", "Photo"], normalize_features: bool = True
    ) -> None:
        check_name(name, list(self.SIZES), "Amazon")
        raw = f"{name}/raw/amazon_electronics_{name.lower()}.npz"
        super().__init__(data_root, "Amazon", [raw], self.SIZES[name], name=name, normalize=normalize_features)


class Coauthor(_NpzGraphs):
    """Coauthor graphs CS and Physics; no public split.

    Args:
        data_root: the data root; files in ``graph/Coauthor/<name>/raw``.
        name: which of them.
        normalize_features: divide each node's features by their sum.

    Source: Shchur et al. 2018, arXiv 1811.05868.
    """

    SIZES: ClassVar = {"CS": Sizes(18333, 163788, 6805, 15), "Physics": Sizes(34493, 495924, 8415, 5)}

    def __init__(self, data_root: Path, *, name: Literal["CS", "Physics"], normalize_features: bool = True) -> None:
        check_name(name, list(self.SIZES), "Coauthor")
        raw = f"{name}/raw/ms_academic_{name[:3].lower()}.npz"
        super().__init__(data_root, "Coauthor", [raw], self.SIZES[name], name=name, normalize=normalize_features)


class WebKB(_LoadedGraphs):
    """Directed, heterophilous web-page graphs Cornell, Texas and Wisconsin with 10 public splits.

    Args:
        data_root: the data root; files in ``graph/WebKB/<name in lower case>/raw``.
        name: which of them.
        normalize_features: divide each node's features by their sum.

    Source: Pei et al. 2020 (Geom-GCN), arXiv 2002.05287.
    """

    SIZES: ClassVar = {
        "Cornell": Sizes(183, 298, 1703, 5, (87, 59, 37)),
        "Texas": Sizes(183, 325, 1703, 5, (87, 59, 37)),
        "Wisconsin": Sizes(251, 515, 1703, 5, (120, 80, 51)),
    }

    def __init__(
        self,
        data_root: Path,
        *,
        name: Literal["Cornell", "Texas", "Wisconsin"],
        normalize_features: bool = True,
    ) -> None:
        check_name(name, list(self.SIZES), "WebKB")
        folder = name.lower()
        files = ["out1_node_feature_label.txt", "out1_graph_edges.txt"]
        files += [f"{folder}_split_0.6_0.2_{k}.npz" for k in range(10)]
        raw = [f"{folder}/raw/{file}" for file in files]
        super().__init__(data_root, "WebKB", raw, self.SIZES[name], name=name, normalize=normalize_features)


class WikiCS(_LoadedGraphs):
    """Wikipedia articles on computer science, as an undirected graph, with 20 public splits.

    The validation part is the file's ``val_masks``; its ``stopping_masks`` (for early stopping of supervised
    training) are not used.

    Args:
        data_root: the data root; file in ``graph/WikiCS/raw``.
        normalize_features: subtract the smallest entry and divide each node's features by their sum.
        standardize_features: then bring each feature column to mean 0 and variance 1, as BGRL's authors do.

    Source: Mernyei & Cangea 2020, arXiv 2007.02901.
    """

    SIZES: ClassVar = Sizes(11701, 431726, 300, 10)

    def __init__(self, data_root: Path, *, normalize_features: bool = True, standardize_features: bool = True) -> None:
        raw = ["raw/data.json"]
        super().__init__(data_root, "WikiCS", raw, self.SIZES, normalize=normalize_features, is_undirected=True)
        self.standardize = standardize_features

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw file."""
        dataset = super().parse(root)
        if not self.standardize:
            return dataset
        graph = dataset.graphs[0]
        return replace(dataset, graphs=(replace(graph, x=_standardize(graph.x)),))


class PPI(_LoadedGraphs):
    """24 protein-interaction graphs with 121 labels a node; 20 to train, 2 to validate, 2 to test.

    The split ``"public"`` consists of the node rows of those graphs.

    Args:
        data_root: the data root; files in ``graph/PPI/raw``.
        normalize_features: as for the other datasets; off, as BGRL's authors use these features unchanged.
        pretrain: graphs that self-supervised pre-training sees; BGRL's authors use train and validation.

    Source: Zitnik & Leskovec 2017, in the version of Hamilton et al. 2017, arXiv 1706.02216.
    """

    SIZES: ClassVar = Sizes(56944, 1587264, 50, 121, (44906, 6514, 5524))
    PRETRAIN: ClassVar = {
        "train": ("train",),
        "train+val": ("train", "valid"),
        "all": ("train", "valid", "test"),
    }

    def __init__(
        self,
        data_root: Path,
        *,
        normalize_features: bool = False,
        pretrain: Literal["train", "train+val", "all"] = "train+val",
    ) -> None:
        if pretrain not in self.PRETRAIN:
            raise RecipeError(f"pretrain must be one of {', '.join(self.PRETRAIN)}, got {pretrain!r}")
        kinds = ("feats.npy", "graph_id.npy", "graph.json", "labels.npy")
        raw = [f"raw/{part}_{kind}" for part, kind in product(("train", "valid", "test"), kinds)]
        super().__init__(data_root, "PPI", raw, self.SIZES, normalize=normalize_features)
        self.pretrain = pretrain

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw files."""
        loader = self.loader(root)
        loader.process()
        graphs: list[Graph] = []
        members: dict[str, list[int]] = {}
        for part, parsed in zip(("train", "valid", "test"), loader.parsed, strict=True):
            members[part] = list(range(len(graphs), len(graphs) + len(parsed)))
            for k, data in enumerate(parsed):
                title = f"{self.title} {part} graph {k}"
                graphs.append(make_graph(data.x, data.edge_index, data.y, name=title, normalize=self.normalize))
        ends = np.cumsum([graph.num_nodes for graph in graphs])
        rows = {
            part: np.concatenate([np.arange(ends[g] - graphs[g].num_nodes, ends[g]) for g in ids])
            for part, ids in members.items()
        }
        return GraphDataset(
            name=self.title,
            graphs=tuple(graphs),
            num_classes=graphs[0].y.shape[1],
            splits={"public": (Split(rows["train"], rows["valid"], rows["test"]),)},
            train_graphs=tuple(g for part in self.PRETRAIN[self.pretrain] for g in members[part]),
        )


def _standardize(x: Tensor) -> Tensor:
    x = x.to_dense()
    std, mean = torch.std_mean(x, dim=0, unbiased=False)
    return (x - mean) / std.clamp(min=torch.finfo(x.dtype).tiny)  # a constant column becomes 0
