"""Files of graphs, read without running what a pickle may ask for: arrays of an ``.npz``, and those of Planetoid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError
from sslcollapse.core.untrusted import as_matrix, check_regular, read_arrays, unpickle
from sslcollapse.domains.graph.data import csr_tensor
from sslcollapse.domains.graph.stored import Sizes
from sslcollapse.nn.sparse import import_geometric


def read_npz(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges and labels of an attributed graph in the npz format of Shchur et al. 2018.

    The same values as PyTorch Geometric's ``read_npz``, which goes through a dense [N, F] array: positive
    features become 1, self-loops are removed, edges are made undirected.

    Raises:
        DataError: see ``read_arrays``.
        ValueError: indices beyond the shape.

    Shapes:
        result: x [N, F] ``torch.sparse_csr`` float32; edge_index [2, E]; y [N] int64.
    """
    import scipy.sparse as sp

    utils = import_geometric("utils")
    file = read_arrays(path)
    nodes, width = (int(n) for n in file["attr_shape"])
    attributes = sp.csr_matrix((file["attr_data"], file["attr_indices"], file["attr_indptr"]), (nodes, width))
    adjacency = sp.csr_matrix((file["adj_data"], file["adj_indices"], file["adj_indptr"]), file["adj_shape"])
    y = torch.from_numpy(file["labels"]).long()
    for matrix in (attributes, adjacency):
        matrix.check_format(full_check=True)  # a damaged file may hold indices beyond the shape
    links = adjacency.tocoo()
    attributes.sum_duplicates()
    attributes.eliminate_zeros()
    values = torch.from_numpy(attributes.data).float()
    values[values > 0] = 1.0
    counts = torch.from_numpy(np.diff(attributes.indptr)).long()
    x = csr_tensor(counts, torch.from_numpy(attributes.indices).long(), values, (nodes, width))
    edge_index = torch.from_numpy(np.stack([links.row, links.col])).long()
    edge_index, _ = utils.remove_self_loops(edge_index)
    return x, utils.to_undirected(edge_index, num_nodes=nodes), y


PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
VALIDATION = 500
"""The nodes after the labelled ones, for validation."""


def read_part(path: Path) -> Any:
    """One file ``ind.<name>.<part>``: test rows [T], adjacency lists as a dict, or a matrix.

    Raises:
        DataError: see ``unpickle``.
        Exception: whatever a damaged file makes of its reader.
    """
    if path.name.endswith(".test.index"):
        check_regular(path)
        return np.loadtxt(path, dtype=np.int64, ndmin=1)
    content = unpickle(path)
    if not path.name.endswith(".graph"):
        return as_matrix(content, str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__} where adjacency lists should be")
    return content


def read_planetoid(folder: Path, name: str, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Features, edges, labels and the masks of the public split (train, validation, test) of ``folder/ind.<name>.*``.

    The same values as PyTorch Geometric's reader. Known nodes come first. The rows of test nodes are in the order of
    the test index; a number that the index leaves out is a node without features, label and edges.

    Raises:
        DataError: a file asks for code to be run, or is larger than ``sizes`` says.

    Shapes:
        result: x [N, F] float32; edge_index [2, E]; y [N] int64; masks [N].
    """
    part = {kind: read_part(folder / f"ind.{name}.{kind}") for kind in PARTS}
    test = part["test.index"]
    known, labelled = part["allx"].shape[0], part["y"].shape[0]
    nodes = max(known + part["tx"].shape[0], int(test.max()) + 1)
    found = (("nodes", nodes, sizes.nodes), ("feature columns", part["allx"].shape[1], sizes.features))
    for what, count, published in found:
        if count > published:  # before it is laid out with all its zeros
            raise DataError(f"{folder}: {count:,} {what} instead of {published:,}; a file is not the dataset's")
    if test.min() < known:
        raise DataError(f"{folder}: the test index names node {test.min()}, one of the {known} known ones")
    x, labels = (_joined(part[whole], part[rest], test, nodes) for whole, rest in (("allx", "tx"), ("ally", "ty")))
    edge_index = import_geometric("io.planetoid").edge_index_from_dict(part["graph"], num_nodes=nodes)
    masks = torch.zeros(3, nodes, dtype=torch.bool)
    masks[0, :labelled] = True
    masks[1, labelled : labelled + VALIDATION] = True
    masks[2, torch.from_numpy(test)] = True
    return x, edge_index, labels.max(dim=1).indices, tuple(masks)


def _joined(known: Any, tested: Any, test: np.ndarray, nodes: int) -> Tensor:
    """Rows of known nodes, then those of test nodes at their places in the test index. [N, columns]."""
    joined = torch.zeros(nodes, known.shape[1])
    joined[: known.shape[0]] = _dense(known)
    joined[torch.from_numpy(test)] = _dense(tested)[: len(test)]  # an index that was cut is told by its length
    return joined


def _dense(matrix: Any) -> Tensor:
    return torch.from_numpy(matrix if isinstance(matrix, np.ndarray) else matrix.toarray()).float()
