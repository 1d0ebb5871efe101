"""A small transformer encoder, pre-norm, of torch's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from sslcollapse import Above, AtLeast, Between, Width
from sslcollapse_text.views import PADDING

Pooling = Literal["mean", "cls"]


class Transformer(nn.Module):
    """A pre-norm transformer over tokens: mean over a text's tokens, or a learned token that reads all others.

    x ← x + Attention(LayerNorm(x)), x ← x + MLP(LayerNorm(x)) in each layer, and a LayerNorm at the end.

    Padding is neither attended to nor computed: between attentions the tokens of all texts stand below one another
    [tokens, width]. So the spectra of layers are those of real tokens, and a text's representation does not depend on
    the texts beside it. (To find the tokens costs one wait for a GPU a view.)

    Queries, keys and values are rows of one ``nn.Linear``, as in ``nn.MultiheadAttention``, which would not let the
    outputs of the three be seen, and their ranks are what one wants to see.

    Args:
        in_shape: (T, V): tokens of a text at most, and tokens of the vocabulary.
        width: of a token, and of the representation.
        layers: how many.
        heads: of attention in each; they divide the width.
        hidden: width inside the MLP; None is four times ``width``.
        dropout: after the embedding, of attention, and before each addition. SimCSE's views differ by it alone.
        pooling: ``"mean"`` over the tokens of a text, or ``"cls"``.
        embedding_std: standard deviation of the first embeddings. At BERT's 0.02 what attention adds outweighs the
            tokens; at 1 the untrained encoder is nearly a mean of random vectors of tokens, and a better one.

    Raises:
        ValueError: for a shape that is not that of texts, or a width that the heads do not divide.

    Shapes:
        [N, T′] ids, −1 where a text has ended, T′ ≤ T → [N, width].

    Source: Vaswani et al. 2017; Xiong et al. 2020 for pre-norm; Devlin et al. 2019 (BERT) for ``"cls"``.
    """

    reads: ClassVar = ("sequence",)

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        width: Width = 64,
        layers: Annotated[int, AtLeast(1)] = 2,
        heads: Annotated[int, AtLeast(1)] = 4,
        hidden: Width | None = None,
        dropout: Annotated[float, Between(0, 1, open="right")] = 0.1,
        pooling: Pooling = "mean",
        embedding_std: Annotated[float, Above(0)] = 0.02,
    ) -> None:
        super().__init__()
        length, vocabulary = text_shape(in_shape, "transformer")
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got {pooling!r}")
        if not embedding_std > 0.0:
            raise ValueError(f"embedding_std must be > 0, got {embedding_std}")
        self.out_dim, self.length, self.pooling, self.embedding_std = width, length, pooling, embedding_std
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length + 1, width)  # place 0 is that of the CLS token
        self.cls = nn.Parameter(torch.empty(width)) if pooling == "cls" else None
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(width, heads, hidden or 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew: embeddings from N(0, embedding_std²), the rest as torch's layers do."""
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=self.embedding_std)
        if self.cls is not None:
            nn.init.normal_(self.cls, std=self.embedding_std)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.reset_parameters()

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T′] → [N, width]."""
        if ids.shape[1] > self.length:
            raise ValueError(f"a view of {ids.shape[1]} tokens, where the encoder was built for {self.length}")
        present = ids != PADDING  # [N, T′]
        texts, places = present.nonzero(as_tuple=True)  # [M] each, text after text
        x = self.tokens(ids[texts, places]) + self.places(places + 1)  # [M, width]
        if self.cls is not None:
            present = torch.cat([present.new_ones(len(ids), 1), present], dim=1)
            first = (self.cls + self.places.weight[0]).expand(len(ids), -1)
            x = torch.cat([first, x])[
                torch.cat([torch.arange(len(ids), device=ids.device), texts]).argsort(stable=True)
            ]
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, present)
        x = self.norm(x)
        if self.cls is not None:
            lengths = present.sum(1)
            return x[lengths.cumsum(0) - lengths]
        sums = x.new_zeros(len(ids), self.out_dim).index_add_(0, texts, x)
        return sums / present.sum(1, keepdim=True).clamp(min=1)


class Block(nn.Module):
    """Attention and MLP, each added to what it reads."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """[M, width] of the tokens that are ``present`` [N, T] → the same."""
        x = x + self.dropout(self.attention(self.norm1(x), present))
        return x + self.dropout(self.down(gelu(self.up(self.norm2(x)))))


class Attention(nn.Module):
    """Multi-head self-attention within each text."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # sslcollapse reads this: the map's rows are three layers.
        self.fused_maps = {"qkv": {"q": width, "k": width, "v": width}}

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """[M, width] of the tokens that are ``present`` [N, T] → the same."""
        count, length = present.shape
        packed = self.qkv(x)  # [M, 3 · width]
        padded = packed.new_zeros(count, length, packed.shape[1])
        padded[present] = packed
        q, k, v = padded.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [N, heads, T, d] each
        visible = present[:, None, None, :]  # of every query the keys that are tokens
        out = scaled_dot_product_attention(q, k, v, visible, dropout_p=self.p if self.training else 0.0)
        return self.out(out.transpose(1, 2).reshape(count, length, -1)[present])


def text_shape(in_shape: Sequence[int], encoder: str) -> tuple[int, int]:
    """(T, V) of texts.

    Raises:
        ValueError: another shape.
    """
    if len(in_shape) != 2 or min(in_shape) < 1:
        raise ValueError(
            f"{encoder} reads texts of shape (tokens, vocabulary), got {tuple(in_shape)}; use the domain 'text'"
        )
    return int(in_shape[0]), int(in_shape[1])
