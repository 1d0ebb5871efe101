"""SimCLR with the parts of lightly, trained by Lightning: ranks go where Lightning logs.

``CollapseCallback`` needs no change of the module; ``EffectiveRank`` in it measures the representation of a held-out
set.
"""

import logging

import pytorch_lightning as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn
from torch.utils.data import DataLoader

from sslcollapse.integrations import CollapseCallback, EffectiveRank


class SimCLR(pl.LightningModule):
    """Batches are images [B, 3, 16, 16]; a view is an image with noise, mirrored or not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 32),
        )
        self.projection_head = SimCLRProjectionHead(32, 32, 16)
        self.criterion = NTXentLoss()
        self.rank = EffectiveRank(32, centred=True)

    def view(self, images: torch.Tensor) -> torch.Tensor:
        """A random view."""
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(mirrored, images.flip(-1), images) + 0.2 * torch.randn_like(images)

    def training_step(self, images: torch.Tensor, index: int) -> torch.Tensor:
        """Contrast two views."""
        z0, z1 = (self.projection_head(self.backbone(self.view(images))) for _ in range(2))
        return self.criterion(z0, z1)

    def validation_step(self, images: torch.Tensor, index: int) -> None:
        """Rank of the representation, over the whole set."""
        self.rank.update(self.backbone(images))
        self.log("effective_rank/representation", self.rank)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main() -> None:
    """Train for three epochs, and print what was logged last."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.randn(320, 3, 4, 4), 16, mode="bilinear")
    callback = CollapseCallback(every=2, layers=["backbone.*", "projection_head.*"])
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SimCLR(), DataLoader(images[:256], 64, shuffle=True), DataLoader(images[256:], 64))
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:50} {value.item():5.1f}")
    print(f"{len(callback.monitor.history)} rows of history")


if __name__ == "__main__":
    main()
