"""Which rows of a fused map (query, key and value in one matrix) are which part, by the class that uses it.

A name does not tell: parts are unequal, grouped or interleaved head by head, and some maps have two parts. So a map is
cut only where the class whose ``forward`` runs is in the tables below, with sizes out of that module's attributes, or
where a module says so itself in an attribute ``fused_maps``. Any other map stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from sslcollapse.layers.effective import runs


class Part(NamedTuple):
    """Rows of one part: of every ``period`` rows (of all, where it is 0) ``width`` from ``start`` on."""

    name: str
    start: int
    width: int
    period: int = 0


class Cut(NamedTuple):
    """How the map in a child is cut: sizes of the parts in each of ``heads`` equal blocks of rows; None: all equal."""

    child: str
    names: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    heads: int = 1

    def parts(self, rows: int) -> list[Part]:
        """The parts of a map with that many rows; none where the sizes do not add up to it."""
        sizes = self.sizes
        if sizes is None:
            sizes = (rows // (self.heads * len(self.names)),) * len(self.names)
        period = sum(sizes)
        if period * self.heads != rows or min(sizes) < 1:
            return []
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        return [
            Part(name, start, width, period if self.heads > 1 else 0)
            for name, start, width in zip(self.names, starts, sizes, strict=True)
        ]


QKV, KV, QK = ("q", "k", "v"), ("k", "v"), ("q", "k")


def cuts(module: nn.Module) -> Iterable[Cut]:
    """How the fused maps among a module's children are cut."""
    declared = getattr(module, "fused_maps", None)
    if isinstance(declared, Mapping):
        return [Cut(child, tuple(sizes), tuple(sizes.values())) for child, sizes in declared.items()]
    rule = _RULES.get(runs(module))
    return [] if rule is None else rule(module)


def _equal(child: str, names: tuple[str, ...] = QKV) -> Callable[[Any], list[Cut]]:
    return lambda module: [Cut(child, names)]


def _interleaved(child: str) -> Callable[[Any], list[Cut]]:
    """Heads one after the other, in each of them equal parts."""
    return lambda module: [Cut(child, QKV, heads=module.num_heads)]


def _by_head(child: str) -> Callable[[Any], list[Cut]]:
    """Heads one after the other, in each of them keys of another width than values."""
    return lambda m: [Cut(child, QKV, (m.key_dim, m.key_dim, m.val_dim), m.num_heads)]


def _head_first(module: Any) -> list[Cut]:
    return [Cut("qkv", QKV, heads=module.num_heads if module.head_first else 1)]


def _levit(module: Any) -> list[Cut]:
    child = "qkv.linear"
    return [Cut(child, QKV, (module.key_dim, module.key_dim, module.val_dim), module.num_heads)]


def _multi_scale(module: Any) -> list[Cut]:
    return [Cut("qkv.conv", QKV, (module.dim,) * 3, module.qkv.conv.out_channels // (3 * module.dim))]


def _cascaded(module: Any) -> list[Cut]:
    sizes = (module.key_dim, module.key_dim, module.val_dim)
    return [Cut(f"qkvs.{head}.conv", QKV, sizes) for head in range(len(module.qkvs))]


def _parallel(module: Any) -> list[Cut]:
    return [Cut("in_proj", ("mlp", *QKV), tuple(module.in_split))]


def _gpt2(module: Any) -> list[Cut]:
    return [Cut("c_attn", KV if module.is_cross_attention else QKV)]


def _bigcode(module: Any) -> list[Cut]:
    if module.is_cross_attention:
        return [Cut("c_attn", KV)]
    if module.multi_query:
        return [Cut("c_attn", QKV, (module.embed_dim, module.kv_dim, module.kv_dim))]
    return [Cut("c_attn", QKV, heads=module.num_heads)]


def _falcon(module: Any) -> list[Cut]:
    heads, groups, width = module.num_heads, module.num_kv_heads, module.head_dim
    if module.new_decoder_architecture:
        return [Cut("query_key_value", QKV, (heads // groups * width, width, width), groups)]
    if module.multi_query:
        return [Cut("query_key_value", QKV, (heads * width, width, width))]
    return [Cut("query_key_value", QKV, heads=heads)]


def _grouped(child: str, heads: Callable[[Any], int]) -> Callable[[Any], list[Cut]]:
    """Queries of all heads, then the keys and the values that groups of heads share."""

    def rule(module: Any) -> list[Cut]:
        shared = module.num_key_value_heads * module.head_dim
        return [Cut(child, QKV, (heads(module) * module.head_dim, shared, shared))]

    return rule


_TIMM_THIRDS = (
    "layers.attention.Attention",
    "layers.attention.AttentionRope",
    "layers.attention_pool2d.AttentionPool2d",
    "layers.attention_pool2d.RotAttentionPool2d",
    "layers.diff_attention.DiffAttention",
    "models.beit.Attention",
    "models.cait.TalkingHeadAttn",
    "models.coat.FactorAttnConvRelPosEnc",
    "models.convit.MHSA",
    "models.davit.ChannelAttention",
    "models.davit.ChannelAttentionV2",
    "models.davit.WindowAttention",
    "models.edgenext.CrossCovarianceAttn",
    "models.eva.EvaAttention",
    "models.fastvit.Attention",
    "models.hiera.MaskUnitAttention",
    "models.hieradet_sam2.MultiScaleAttention",
    "models.metaformer.Attention",
    "models.mvitv2.MultiScaleAttention",
    "models.nest.Attention",
    "models.swin_transformer.WindowAttention",
    "models.swin_transformer_v2.WindowAttention",
    "models.swin_transformer_v2_cr.WindowMultiHeadAttention",
    "models.twins.LocallyGroupedAttn",
    "models.vision_transformer_relpos.RelPosAttention",
    "models.vision_transformer_sam.Attention",
    "models.visformer.Attention",
    "models.volo.Attention",
    "models.xcit.XCA",
)
_TIMM: dict[str, Callable[[Any], list[Cut]]] = dict.fromkeys(_TIMM_THIRDS, _equal("qkv")) | {
    "layers.attention2d.Attention2d": _head_first,
    "layers.attention_pool.AttentionPoolLatent": _equal("kv", KV),
    "layers.bottleneck_attn.BottleneckAttn": lambda m: [Cut("qkv", QKV, (m.dim_out_qk, m.dim_out_qk, m.dim_out_v))],
    "layers.halo_attn.HaloAttn": lambda m: [Cut("kv", KV, (m.dim_head_qk, m.dim_head_v), m.num_heads)],
    "layers.lambda_layer.LambdaLayer": lambda m: [Cut("qkv", QKV, (m.num_heads * m.dim_qk, m.dim_qk, m.dim_v))],
    "models.convit.GPSA": _equal("qk", QK),
    "models.efficientformer.Attention": _by_head("qkv"),
    "models.efficientvit_mit.LiteMLA": _multi_scale,
    "models.efficientvit_msra.CascadedGroupAttention": _cascaded,
    "models.gcvit.WindowAttentionGlobal": lambda m: [Cut("qkv", KV if m.use_global else QKV)],
    "models.levit.Attention": _levit,
    "models.levit.AttentionDownsample": lambda m: [Cut("kv.linear", KV, (m.key_dim, m.val_dim), m.num_heads)],
    "models.maxxvit.Attention2d": _head_first,
    "models.maxxvit.AttentionCl": _head_first,
    "models.mobilevit.LinearSelfAttention": lambda m: [Cut("qkv_proj", QKV, (1, m.embed_dim, m.embed_dim))],
    "models.pvt_v2.Attention": _equal("kv", KV),
    "models.shvit.SHSA": lambda m: [Cut("qkv.c", QKV, (m.qk_dim, m.qk_dim, m.pdim))],
    "models.tiny_vit.Attention": _by_head("qkv"),
    "models.tnt.Attention": _equal("qk", QK),
    "models.twins.GlobalSubSampleAttn": _equal("kv", KV),
    "models.vision_transformer.DiffParallelScalingBlock": _parallel,
    "models.vision_transformer.ParallelScalingBlock": _parallel,
    "models.volo.ClassAttention": _equal("kv", KV),
}
_HUGGING_FACE: dict[str, Callable[[Any], list[Cut]]] = {
    "blip.modeling_blip.BlipAttention": _equal("qkv"),
    "blip_2.modeling_blip_2.Blip2Attention": _equal("qkv"),
    "bloom.modeling_bloom.BloomAttention": _interleaved("query_key_value"),
    "dbrx.modeling_dbrx.DbrxAttention": _grouped("Wqkv", lambda m: m.num_heads),
    "decision_transformer.modeling_decision_transformer.DecisionTransformerGPT2Attention": _gpt2,
    "falcon.modeling_falcon.FalconAttention": _falcon,
    "gpt2.modeling_gpt2.GPT2Attention": _gpt2,
    "gpt_bigcode.modeling_gpt_bigcode.GPTBigCodeAttention": _bigcode,
    "gpt_neox.modeling_gpt_neox.GPTNeoXAttention": lambda m: [
        Cut("query_key_value", QKV, heads=m.config.num_attention_heads)
    ],
    "hiera.modeling_hiera.HieraMaskUnitAttention": _equal("qkv"),
    "imagegpt.modeling_imagegpt.ImageGPTAttention": _gpt2,
    "modernbert.modeling_modernbert.ModernBertAttention": _equal("Wqkv"),
    "mpt.modeling_mpt.MptAttention": _equal("Wqkv"),
    "openai.modeling_openai.Attention": _equal("c_attn"),
    "persimmon.modeling_persimmon.PersimmonAttention": _interleaved("query_key_value"),
    "phi3.modeling_phi3.Phi3Attention": _grouped("qkv_proj", lambda m: m.config.num_attention_heads),
    "sam.modeling_sam.SamVisionAttention": _equal("qkv"),
    "sam.modeling_sam.SamVisionSdpaAttention": _equal("qkv"),
    "timesformer.modeling_timesformer.TimesformerSelfAttention": _equal("qkv"),
    "vitdet.modeling_vitdet.VitDetAttention": _equal("qkv"),
}
_RULES: dict[str, Callable[[Any], list[Cut]]] = {
    **{f"timm.{path}": rule for path, rule in _TIMM.items()},
    **{f"transformers.models.{path}": rule for path, rule in _HUGGING_FACE.items()},
}
