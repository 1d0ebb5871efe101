"""The npz format of attributed graphs, read without a dense feature array on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.untrusted import read_arrays
from sslcollapse.domains.graph.data import csr_tensor
from sslcollapse.nn.geometric import import_geometric


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
