"""A module that processes started by Lightning can import."""

import pytorch_lightning as pl
import torch
from torch import nn

from sslcollapse.integrations.torchmetrics import EffectiveRank


class Still(pl.LightningModule):
    """Learns nothing, and measures its representation by a metric of its own."""

    def __init__(self):
        super().__init__()
        self.backbone, self.rank = nn.Linear(5, 4), EffectiveRank(4)

    def training_step(self, x, index):
        h = self.backbone(x)
        self.rank.update(h)
        return h.square().mean()

    def on_train_epoch_end(self):
        self.log("metric", self.rank.compute())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)
