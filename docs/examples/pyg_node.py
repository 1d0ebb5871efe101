"""A graph network of PyTorch Geometric that collapses, and the same with WERank.

The graph is embedded in scikit-learn: 600 handwritten digits, each joined to its 5 nearest. The network learns to give
two views of a node one embedding, with nothing against giving all nodes the same one.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import dropout_edge, from_scipy_sparse_matrix

from sslcollapse import CollapseMonitor, WERank, effective_rank

STEPS = 100


class Network(nn.Module):
    """Two convolutions: features [N, 64] and edges [2, E] → [N, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(64, 64), GCNConv(64, 32)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Embeddings of all nodes."""
        return self.second(self.first(x, edges).relu(), edges)


def digits() -> Data:
    """The graph: pixels as features, edges both ways."""
    pixels = load_digits().data[:600] / 16
    edges, _ = from_scipy_sparse_matrix(kneighbors_graph(pixels, 5))
    return Data(torch.tensor(pixels, dtype=torch.float32), torch.cat([edges, edges.flip(0)], 1).unique(dim=1))


def view(graph: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """A third of features and edges left out."""
    return graph.x * (torch.rand(graph.x.shape[1]) > 0.3), dropout_edge(graph.edge_index, p=0.3)[0]


def train(graph: Data, coefficient: float) -> float:
    """Train with a coefficient of WERank, print the layers' ranks; → effective rank of the embeddings."""
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    werank = WERank(network, coefficient=coefficient)
    with CollapseMonitor(network, every=10) as monitor:
        for step in range(STEPS):
            a, b = network(*view(graph)), network(*view(graph))
            loss = (a - b).square().sum(1).mean() + werank()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == STEPS // 2:
                monitor.summary()  # so that the next one is of the second half alone
        for row in monitor.summary():
            print(f"  {row.layer:10} {row.kind:6} rank {row.effective_rank:5.1f} of {row.attainable}")
    network.eval()
    with torch.no_grad():
        return effective_rank(network(graph.x, graph.edge_index), centred=True)


def main() -> None:
    """Both runs."""
    graph = digits()
    for name, coefficient in (("without WERank", 0.0), ("with WERank", 0.1)):
        print(name)
        print(f"  embeddings        rank {train(graph, coefficient):5.1f} of 32")


if __name__ == "__main__":
    main()
