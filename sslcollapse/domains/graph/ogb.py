"""Node-property graphs of the Open Graph Benchmark, through the ``ogb`` package (extra ``ogb``)."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.data import GraphDataset, make_graph
from sslcollapse.domains.graph.stored import Sizes, StoredGraphs, check_name
from sslcollapse.nn.sparse import import_geometric


class OGBN(StoredGraphs):
    """ogbn-arxiv: 169,343 papers with the official split by year; edges are made undirected.

    ``ogb`` parses its raw files; what it would cache beside them goes to a temporary folder, and what it
    unpickles from there is restricted to PyTorch Geometric's graph classes.

    Args:
        data_root: the data root; files in ``graph/OGB/ogbn_arxiv``.
        name: which dataset.
        normalize_features: as for the other datasets; off, because these are averaged word embeddings.

    Source: Hu et al. 2020, arXiv 2005.00687.
    """

    SIZES: ClassVar = {"ogbn-arxiv": Sizes(169343, 2315598, 128, 40, (90941, 29799, 48603))}
    RAW = ("edge", "node-feat", "num-node-list", "num-edge-list", "node-label", "node_year")
    PARTS = ("train", "valid", "test")

    def __init__(
        self,
        data_root: Path,
        *,
        name: Literal["ogbn-arxiv"] = "ogbn-arxiv",
        normalize_features: bool = False,
    ) -> None:
        check_name(name, list(self.SIZES), "OGB")
        self._directory = name.replace("-", "_")
        raw = [f"{self._directory}/raw/{file}.csv.gz" for file in self.RAW]
        raw += [f"{self._directory}/split/time/{part}.csv.gz" for part in self.PARTS]
        super().__init__(data_root, "OGB", raw, self.SIZES[name], name)
        self.name, self.normalize_features = name, normalize_features

    def fetch(self, root: Path) -> None:
        """Download with ``ogb``'s own functions, without the question it may ask on the terminal."""
        import_ogb()
        import pandas as pd
        from ogb import nodeproppred
        from ogb.utils.url import download_url, extract_zip

        table = Path(nodeproppred.__file__).with_name("master.csv")
        meta = pd.read_csv(table, index_col=0, keep_default_na=False)[self.name]
        with contextlib.redirect_stdout(io.StringIO()):
            archive = Path(download_url(meta["url"], str(root)))
            extract_zip(str(archive), str(root))
        archive.unlink()
        shutil.move(root / meta["download_name"], root / self._directory)

    def parse(self, root: Path) -> GraphDataset:
        """Read the raw files."""
        data, parts = self._parse_with_ogb(root)
        edge_index = import_geometric("utils").to_undirected(data.edge_index, num_nodes=data.num_nodes)
        y = data.y.squeeze(1).long()
        graph = make_graph(data.x, edge_index, y, name=self.title, normalize=self.normalize_features)
        split = Split(*(np.sort(parts[part].numpy()) for part in self.PARTS))
        return GraphDataset(self.title, (graph,), self.sizes.classes, {"public": (split,)})

    def _parse_with_ogb(self, root: Path) -> tuple[Any, dict[str, torch.Tensor]]:
        loader = import_ogb()
        data, storage = import_geometric("data.data"), import_geometric("data.storage")

        # ogb sees a folder with exactly the raw files and the release mark it looks for, so that it neither
        # asks whether to update nor downloads. It reads its freshly written cache back with torch.load, whose
        # safe default refuses PyTorch Geometric's classes (ogb#497); these, and nothing else, are allowed.
        allowed = [data.Data, data.DataEdgeAttr, data.DataTensorAttr, storage.GlobalStorage]
        with tempfile.TemporaryDirectory(prefix="sslcollapse-ogb-") as folder:
            for name in self._raw:
                link = Path(folder, name)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((root / name).resolve())
            Path(folder, self._directory, "RELEASE_v1.txt").touch()
            quiet = io.StringIO()
            with (
                contextlib.redirect_stdout(quiet),
                contextlib.redirect_stderr(quiet),
                torch.serialization.safe_globals(allowed),
            ):
                dataset = loader(self.name, root=folder)
                return dataset[0], dataset.get_idx_split()


def import_ogb() -> Any:
    """Import ``ogb`` offline and return its ``PygNodePropPredDataset``.

    Raises:
        RunError: when ``ogb`` is not installed.
    """
    import_geometric()  # which ogb imports
    # On import ogb asks a package index for its newest version, in a thread that the interpreter then waits
    # for on exit; it does without where `outdated`, which asks, is missing. None in sys.modules hides it.
    hidden = sys.modules.get("outdated", ...)
    sys.modules["outdated"] = None  # type: ignore[assignment]
    try:
        from ogb.nodeproppred.dataset_pyg import PygNodePropPredDataset
    except ImportError as error:
        raise RunError(
            f'the dataset "ogbn" needs the package ogb, which cannot be imported ({error}); install it with: '
            'pip install "sslcollapse[ogb]"'
        ) from error
    finally:
        if hidden is ...:
            del sys.modules["outdated"]
        else:
            sys.modules["outdated"] = hidden  # type: ignore[assignment]
    return PygNodePropPredDataset
