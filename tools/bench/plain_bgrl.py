"""BGRL as one would write it with PyTorch Geometric alone, the yardstick of ``bench graph-step``.

The authors' way: the data object is copied for each view, edges dropped with ``dropout_edge``, feature columns set
to zero in the dense features, ``GCNConv`` runs on the edge index, BatchNorm and PReLU are separate modules, AdamW
has its defaults, and the target follows in a Python loop.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch_geometric.data import Data
from torch_geometric.nn import BatchNorm, GCNConv
from torch_geometric.utils import dropout_edge


class PlainEncoder(nn.Module):
    """GCNConv, BatchNorm(momentum 0.99), PReLU per layer."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(GCNConv(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(BatchNorm(b, momentum=0.99) for _, b in pairs)
        self.acts = nn.ModuleList(nn.PReLU() for _ in pairs)

    def forward(self, data: Data) -> Tensor:
        """A PyTorch Geometric graph → [N, out]."""
        return self.layers(data.x, data.edge_index)

    def layers(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The same of its two tensors, which is what ``torch.compile`` is given."""
        for conv, norm, act in zip(self.convs, self.norms, self.acts, strict=True):
            x = act(norm(conv(x, edge_index)))
        return x


class PlainBGRL:
    """Model, optimiser and step, on the device of the data."""

    def __init__(self, data: Data, widths: list[int], predictor_hidden: int, lr: float) -> None:
        self.data = data
        self.online = PlainEncoder(widths).to(data.x.device)
        self.predictor = nn.Sequential(
            nn.Linear(widths[-1], predictor_hidden), nn.PReLU(), nn.Linear(predictor_hidden, widths[-1])
        ).to(data.x.device)
        self.target = copy.deepcopy(self.online)
        for module in (*self.target.convs, *self.target.norms):
            module.reset_parameters()
        for parameter in self.target.parameters():
            parameter.requires_grad = False
        trainable = [*self.online.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=1e-5)

    def compile(self, backend: str) -> None:
        """Compile both encoders and the predictor; the number of edges differs from view to view."""
        for encoder in (self.online, self.target):
            encoder.layers = torch.compile(encoder.layers, dynamic=True, backend=backend)  # type: ignore[method-assign]
        self.predictor.compile(backend=backend)

    def view(self, edge_drop: float, feature_mask: float) -> Data:
        """A copy of the data with edges dropped and feature columns masked."""
        data = copy.deepcopy(self.data)
        data.edge_index, _ = dropout_edge(data.edge_index, p=edge_drop)
        mask = torch.rand(data.x.shape[1], device=data.x.device) < feature_mask
        data.x[:, mask] = 0
        return data

    def loss(self, first: Data, second: Data) -> Tensor:
        """2 − cos(q₁, y₂) − cos(q₂, y₁), means over nodes."""
        q1, q2 = self.predictor(self.online(first)), self.predictor(self.online(second))
        with torch.no_grad():
            y1, y2 = self.target(first), self.target(second)
        return 2 - cosine_similarity(q1, y2, dim=-1).mean() - cosine_similarity(q2, y1, dim=-1).mean()

    def step(self, edge_drop: Any, feature_mask: Any, momentum: float) -> float:
        """One training step; returns the loss."""
        self.optimizer.zero_grad()
        loss = self.loss(*(self.view(e, f) for e, f in zip(edge_drop, feature_mask, strict=True)))
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for q, k in zip(self.online.parameters(), self.target.parameters(), strict=True):
                k.data.mul_(momentum).add_(q.data, alpha=1.0 - momentum)
        return loss.item()
