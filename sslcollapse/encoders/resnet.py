"""Residual networks for images: torchvision's without classifier, and a narrow one for small images and CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslcollapse.nn.init import check_widths, image_shape
from sslcollapse.recipe.schema import Width

StemName = Literal["cifar", "imagenet"]


class _ResNet(ResNet):
    """torchvision's network with another stem and no classifier; subclasses name the blocks."""

    reads = ("image",)

    block: type[BasicBlock | Bottleneck] = BasicBlock
    depths: tuple[int, ...] = (2, 2, 2, 2)

    def __init__(self, in_shape: Sequence[int], *, stem: StemName = "cifar", zero_init_residual: bool = False) -> None:
        channels = image_shape(in_shape, type(self).__name__.lower())[0]
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        super().__init__(self.block, list(self.depths), num_classes=1, zero_init_residual=zero_init_residual)
        self.in_shape, self.stem, self.zero_init_residual = tuple(in_shape), stem, zero_init_residual
        kernel, stride, padding = (3, 1, 1) if stem == "cifar" else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if stem == "cifar":
            self.maxpool = nn.Identity()
        self.out_dim = 512 * self.block.expansion
        self.fc = nn.Identity()

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        fresh = type(self)(self.in_shape, stem=self.stem, zero_init_residual=self.zero_init_residual)
        self.load_state_dict(fresh.state_dict())


class ResNet18(_ResNet):
    """ResNet-18 (He et al. 2016), torchvision's without classifier: images to 512 features.

    Args:
        in_shape: (channels, height, width) of an image.
        stem: ``"cifar"`` is a 3×3 convolution of stride 1 without max-pooling, for images of about 32 pixels;
            ``"imagenet"`` the original 7×7 of stride 2 with max-pooling.
        zero_init_residual: start every block as the identity: its last BatchNorm's scale is 0.

    Raises:
        ValueError: for an ``in_shape`` that is no image's.

    Shapes:
        [N, C, H, W] → [N, 512].
    """


class ResNet34(_ResNet):
    """ResNet-34 (He et al. 2016), torchvision's without classifier: images to 512 features.

    Args:
        in_shape: (channels, height, width) of an image.
        stem: ``"cifar"`` or ``"imagenet"``, as for ``resnet18``.
        zero_init_residual: start every block as the identity.

    Shapes:
        [N, C, H, W] → [N, 512].
    """

    depths = (3, 4, 6, 3)


class ResNet50(_ResNet):
    """ResNet-50 (He et al. 2016), torchvision's without classifier: images to 2048 features.

    Args:
        in_shape: (channels, height, width) of an image.
        stem: ``"cifar"`` or ``"imagenet"``, as for ``resnet18``.
        zero_init_residual: start every block as the identity.

    Shapes:
        [N, C, H, W] → [N, 2048].
    """

    block = Bottleneck
    depths = (3, 4, 6, 3)


class NarrowResNet(nn.Module):
    """A narrow residual network that a CPU trains in minutes: a 3×3 stem, then a few stages of basic blocks.

    Args:
        in_shape: (channels, height, width) of an image; 8×8 digits are large enough.
        width: channels of the stem and of the first stage; each further stage has twice as many and half the
            resolution.
        blocks: number of basic blocks in each stage.
        zero_init_residual: start every block as the identity: its last BatchNorm's scale is 0.
        skips: whether a block adds its input to what it puts out; without, the network is a plain one, of
            1 + 2 · the number of blocks convolutions, one after the other.

    Raises:
        ValueError: for an ``in_shape`` that is no image's, ``blocks`` that are not positive, or
            ``zero_init_residual`` without skips, since a block that starts at 0 and has no skip puts out nothing.

    Shapes:
        [N, C, H, W] → [N, width · 2^(stages − 1)].
    """

    reads = ("image",)

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        width: Width = 16,
        blocks: Sequence[Width] = (1, 1, 1),
        zero_init_residual: bool = False,
        skips: bool = True,
    ) -> None:
        super().__init__()
        channels = image_shape(in_shape, "resnet_narrow")[0]
        if width < 1:
            raise ValueError(f"width must be >= 1, got {width}")
        if zero_init_residual and not skips:
            raise ValueError("zero_init_residual=True needs skips, got skips=False: all representations would be equal")
        depths = check_widths(blocks, "blocks")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.stages = nn.Sequential()
        self.out_dim = width
        for index, depth in enumerate(depths):
            stage = _stage(self.out_dim, width * 2**index, depth, 2 if index else 1, skips)
            self.stages.append(stage)
            self.out_dim = width * 2**index
        self.zero_init_residual = zero_init_residual
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise all layers again, as torchvision's residual networks do."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()
        if self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.bn2.weight)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] → [N, out_dim]."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.stages(x).mean((2, 3))


class _PlainBlock(BasicBlock):
    """The two convolutions of a basic block, without the skip."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C', H', W']."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


def _stage(narrow: int, wide: int, depth: int, stride: int, skips: bool) -> nn.Sequential:
    """Blocks of one width; the first changes width and resolution, a skip beside it by a 1×1 convolution."""
    shortcut, block = None, BasicBlock if skips else _PlainBlock
    if skips and (stride != 1 or narrow != wide):
        shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    first = block(narrow, wide, stride, shortcut)
    return nn.Sequential(first, *(block(wide, wide) for _ in range(depth - 1)))
