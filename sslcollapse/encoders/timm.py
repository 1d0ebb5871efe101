"""Adapter that runs any model of timm as an encoder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from sslcollapse.core.errors import MissingDataError
from sslcollapse.nn.init import image_shape

OURS = ("num_classes", "in_chans", "pretrained")


class Timm(nn.Module):
    """Any image model of timm by name, without its classifier: vision transformers, ConvNeXts and others.

    Args:
        in_shape: (channels, height, width) of an image. A model that is built for one size is built for this one.
        model: timm's name of the model, e.g. ``"vit_tiny_patch16_224"``.
        pretrained: start from published weights, which timm downloads. What labels they have seen is then part of
            every result.
        kwargs: the model's other arguments, e.g. ``dict(patch_size=4)``.

    Raises:
        ValueError: for a model that timm does not have, arguments or an image size that it refuses, or a model
            that does not return one row an image.
        MissingDataError: the pretrained weights cannot be had.

    Shapes:
        [N, C, H, W] → [N, out_dim].
    """

    reads = ("image",)

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        model: str,
        pretrained: bool = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_shape = image_shape(in_shape, "timm")
        self.name, self.pretrained, self.arguments = model, pretrained, dict(kwargs or {})
        _check_name(model)
        for name in OURS:
            if name in self.arguments:
                raise ValueError(f"kwargs.{name}: is set from the data or by an argument of the encoder; leave it out")
        self.model = self._built()
        self.out_dim = self._width()

    def reset_parameters(self) -> None:
        """Initialise the model again, or with ``pretrained`` load its weights again."""
        self.model.load_state_dict(self._built().state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] → [N, out_dim]."""
        return self.model(images)

    def _built(self) -> nn.Module:
        channels, height, width = self.in_shape
        size = {"img_size": height if height == width else (height, width)}
        settings = {"num_classes": 0, "in_chans": channels, "pretrained": self.pretrained}
        try:
            try:
                return timm.create_model(self.name, **settings, **(size | self.arguments))
            except TypeError as error:
                if "img_size" not in str(error) or "img_size" in self.arguments:
                    raise
                return timm.create_model(self.name, **settings, **self.arguments)
        except Exception as error:  # timm's models check their arguments in many ways, some by failing
            if self.pretrained and isinstance(error, (OSError, RuntimeError)):
                raise MissingDataError(
                    f"encoder timm: the pretrained weights of {self.name} cannot be loaded ({error}); check the "
                    "network, or set encoder.pretrained=False"
                ) from error
            raise ValueError(
                f"timm's {self.name} refuses images {self.in_shape} with kwargs {self.arguments}: "
                f"{str(error) or type(error).__name__}"
            ) from error

    def _width(self) -> int:
        """Width of what the model returns, which timm's attributes do not tell for every model."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                out = self.model(torch.zeros(1, *self.in_shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(
                f"timm's {self.name} cannot read images {self.in_shape}: {error}; make the views larger "
                "(domain.size), or set the model's arguments for small images in kwargs, e.g. patch_size=4 for a ViT"
            ) from error
        finally:
            self.model.train(training)
        if not isinstance(out, Tensor) or out.dim() != 2:
            shape = f"shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise ValueError(
                f"timm's {self.name} returns {shape} for one image, an encoder returns [1, width]; set its pooling in "
                "kwargs, e.g. global_pool='avg'"
            )
        return out.shape[1]


def _check_name(model: str) -> None:
    if timm.is_model(model):
        return
    known = timm.list_models()
    longer = [name for name in known if name.startswith(model)] if model else []
    near = longer[:3] or difflib.get_close_matches(model, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"model: timm has no model {model!r}{hint} (all names: timm.list_models())")
