"""Miniature raw files in the formats the loaders read; widths are the real ones, node counts are tiny."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sslcollapse.domains.graph.stored import Sizes, StoredGraphs

TINY = {
    "Planetoid": Sizes(527, 1054, 1433, 7, (7, 500, 20)),
    "WebKB": Sizes(6, 5, 1703, 5, (3, 2, 1)),
    "WikiCS": Sizes(8, 14, 300, 4),
    "PPI": Sizes(15, 30, 50, 121, (7, 3, 5)),
    "OGBN": Sizes(30, 112, 128, 40, (18, 6, 6)),
}
"""Sizes of the miniatures, by class; those of npz files have the width of the dataset."""


def tiny(dataset: StoredGraphs) -> StoredGraphs:
    """The dataset with the sizes of its miniature files in place of the published ones."""
    dataset.sizes = TINY.get(type(dataset).__name__) or Sizes(5, 8, dataset.num_features, 3)
    return dataset


def write_planetoid(root: Path) -> None:
    """Cora's format: 7 training rows, 500 more known ones, 20 shuffled test rows, joined in a ring."""
    raw = root / "graph/Planetoid/Cora/raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    test = rng.permutation(np.arange(507, 527))
    features = sp.csr_matrix((rng.random((527, 1433)) < 0.02).astype(np.float32))
    labels = np.eye(7, dtype=np.int32)[np.arange(527) % 7]
    ring = {i: [(i - 1) % 527, (i + 1) % 527] for i in range(527)}
    ring[0].append(0)
    parts = {
        "x": features[:7],
        "y": labels[:7],
        "allx": features[:507],
        "ally": labels[:507],
        "tx": features[507:],
        "ty": labels[507:],
        "graph": ring,
    }
    for name, part in parts.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(part))
    (raw / "ind.cora.test.index").write_text("\n".join(map(str, test)) + "\n")


def write_npz(path: Path, features: int) -> None:
    """Five nodes; counts, an explicit zero, a duplicate, a negative entry; a self-loop, single directions."""
    path.parent.mkdir(parents=True)
    links = sp.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 0, 3, 0, 0], [0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0] * 5]))
    np.savez(
        path,
        attr_data=np.array([2.0, 1.0, 0.0, 1.0, 1.0, -1.5, 4.0]),
        attr_indices=np.array([9, 3, 1, 5, 5, 7, 0]),
        attr_indptr=np.array([0, 2, 3, 5, 6, 7]),
        attr_shape=np.array([5, features]),
        adj_data=links.data,
        adj_indices=links.indices,
        adj_indptr=links.indptr,
        adj_shape=np.array(links.shape),
        labels=np.array([0, 1, 2, 1, 0]),
    )


def write_webkb(root: Path) -> None:
    """Six nodes in a directed chain with ten rotated splits."""
    raw = root / "graph/WebKB/cornell/raw"
    raw.mkdir(parents=True)
    rows = ["\t".join((str(i), ",".join("1" if j == i else "0" for j in range(1703)), str(i % 5))) for i in range(6)]
    (raw / "out1_node_feature_label.txt").write_text("\n".join(["node\tfeature\tlabel", *rows, ""]))
    edges = [f"{i}\t{i + 1}" for i in range(5)]
    (raw / "out1_graph_edges.txt").write_text("\n".join(["from\tto", *edges, ""]))
    for k in range(10):
        part = np.roll(np.array([0, 0, 0, 1, 1, 2]), k)
        masks = {f"{name}_mask": (part == j).astype(int) for j, name in enumerate(("train", "val", "test"))}
        np.savez(raw / f"cornell_split_0.6_0.2_{k}.npz", **masks)


def write_wikics(root: Path) -> None:
    """Eight nodes in a directed chain, 20 splits; test is shared, stopping differs from validation."""
    raw = root / "graph/WikiCS/raw"
    raw.mkdir(parents=True)
    part = [np.roll([0, 0, 1, 2], k).tolist() + [3] * 4 for k in range(20)]
    content = {
        "features": np.random.default_rng(0).normal(size=(8, 300)).tolist(),
        "labels": [0, 1, 2, 3, 0, 1, 2, 3],
        "links": [[i + 1] for i in range(7)] + [[]],
        "train_masks": [[p == 0 for p in row] for row in part],
        "val_masks": [[p == 1 for p in row] for row in part],
        "stopping_masks": [[p == 2 for p in row] for row in part],
        "test_mask": [False] * 4 + [True] * 4,
    }
    (raw / "data.json").write_text(json.dumps(content))


def write_ppi(root: Path) -> None:
    """Training graphs of 3 and 4 nodes, one of 3 to validate, one of 5 to test; each a ring."""
    raw = root / "graph/PPI/raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, sizes, first in (("train", (3, 4), 1), ("valid", (3,), 21), ("test", (5,), 23)):
        total, links, start = sum(sizes), [], 0
        for size in sizes:
            links += [{"source": start + i, "target": start + (i + 1) % size} for i in range(size)]
            start += size
        nodes = [{"id": i} for i in range(total)]
        graph = {"directed": False, "multigraph": False, "graph": {}, "nodes": nodes, "links": links}
        (raw / f"{part}_graph.json").write_text(json.dumps(graph))
        np.save(raw / f"{part}_feats.npy", rng.normal(size=(total, 50)))
        np.save(raw / f"{part}_labels.npy", rng.integers(0, 2, size=(total, 121)))
        np.save(raw / f"{part}_graph_id.npy", np.repeat(np.arange(len(sizes)) + first, sizes))


def write_arxiv(folder: Path) -> None:
    """Thirty papers, each citing the next two; ``folder`` is the dataset's own."""
    rng = np.random.default_rng(0)
    edges = [(i, i + d) for i in range(28) for d in (1, 2)]
    tables = {
        "raw/edge": edges,
        "raw/node-feat": np.round(rng.normal(size=(30, 128)), 4),
        "raw/node-label": [[i % 40] for i in range(30)],
        "raw/node_year": [[2010 + i % 10] for i in range(30)],
        "raw/num-node-list": [[30]],
        "raw/num-edge-list": [[len(edges)]],
        "split/time/train": [[i] for i in range(18)],
        "split/time/valid": [[i] for i in range(18, 24)],
        "split/time/test": [[i] for i in range(24, 30)],
    }
    for name, rows in tables.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def contents(root: Path) -> set[str]:
    """Every file and folder below ``root``."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}
