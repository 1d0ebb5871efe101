"""Parts of fused maps, by what the attention does with them: each class of timm and of Hugging Face that has one."""

import importlib
from functools import partial

import pytest
import torch
from timm.layers import RelPosBias
from timm.models.coat import ConvRelPosEnc
from torch import nn

from sslcollapse import CollapseMonitor, effective_rank
from sslcollapse.layers import fused
from sslcollapse.layers.map import layer_map


def tokens(n: int, width: int) -> torch.Tensor:
    return torch.randn(2, n, width)


def image(width: int, size: int = 8) -> torch.Tensor:
    return torch.randn(2, width, size, size)


W, H = 24, 3  # width and heads: thirds of a head's rows are no multiples of anything
TIMM = {
    "layers.attention.Attention": (dict(dim=W, num_heads=H, qkv_bias=True), lambda: (tokens(7, W),)),
    "layers.attention.AttentionRope": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "layers.attention2d.Attention2d": (dict(dim=W, num_heads=H), lambda: (image(W, 4),)),
    "layers.attention2d.Attention2d heads first": (
        dict(dim=W, num_heads=H, head_first=True),
        lambda: (image(W, 4),),
    ),
    "layers.attention_pool.AttentionPoolLatent": (
        dict(in_features=W, num_heads=H, mlp_ratio=1.0),
        lambda: (tokens(7, W),),
    ),
    "layers.attention_pool2d.AttentionPool2d": (dict(in_features=W, num_heads=H, feat_size=4), lambda: (image(W, 4),)),
    "layers.attention_pool2d.RotAttentionPool2d": (
        dict(in_features=W, num_heads=H, ref_feat_size=4),
        lambda: (image(W, 4),),
    ),
    "layers.bottleneck_attn.BottleneckAttn": (
        dict(dim=W, num_heads=H, feat_size=(4, 4), dim_head=4, qkv_bias=True),
        lambda: (image(W, 4),),
    ),
    "layers.diff_attention.DiffAttention": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "layers.halo_attn.HaloAttn": (dict(dim=W, num_heads=H, dim_head=4, block_size=4, halo_size=1), lambda: (image(W),)),
    "layers.lambda_layer.LambdaLayer": (dict(dim=W, num_heads=H, dim_head=4, r=3), lambda: (image(W, 4),)),
    "models.beit.Attention": (dict(dim=W, num_heads=H, qkv_bias=False), lambda: (tokens(7, W),)),
    "models.cait.TalkingHeadAttn": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.coat.FactorAttnConvRelPosEnc": (
        dict(dim=W, num_heads=H, shared_crpe=ConvRelPosEnc(8, H, 3)),
        lambda: (tokens(17, W), (4, 4)),
    ),
    "models.convit.GPSA": (dict(dim=W, num_heads=H), lambda: (tokens(16, W),)),
    "models.convit.MHSA": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.davit.ChannelAttention": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.davit.ChannelAttentionV2": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.davit.WindowAttention": (dict(dim=W, window_size=(2, 2), num_heads=H), lambda: (tokens(4, W),)),
    "models.edgenext.CrossCovarianceAttn": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.efficientformer.Attention": (
        dict(dim=W, key_dim=4, num_heads=H, attn_ratio=4, resolution=3),
        lambda: (tokens(9, W),),
    ),
    "models.efficientvit_mit.LiteMLA": (dict(in_channels=W, out_channels=W, dim=8), lambda: (image(W, 4),)),
    "models.efficientvit_msra.CascadedGroupAttention": (
        dict(dim=W, key_dim=4, num_heads=H, attn_ratio=2.0, resolution=4, kernels=(3, 3, 3)),
        lambda: (image(W, 4),),
    ),
    "models.eva.EvaAttention": (
        dict(dim=W, num_heads=H, qkv_bias=False, norm_layer=nn.LayerNorm),
        lambda: (tokens(7, W),),
    ),
    "models.fastvit.Attention": (dict(dim=W, head_dim=8), lambda: (image(W, 4),)),
    "models.gcvit.WindowAttentionGlobal": (
        dict(dim=W, num_heads=H, window_size=(2, 2), use_global=False),
        lambda: (tokens(4, W),),
    ),
    "models.gcvit.WindowAttentionGlobal with a global query": (
        dict(dim=W, num_heads=H, window_size=(2, 2), use_global=True),
        lambda: (tokens(4, W), tokens(4, W)),
    ),
    "models.hiera.MaskUnitAttention": (dict(dim=W, dim_out=W, heads=H), lambda: (tokens(8, W),)),
    "models.hieradet_sam2.MultiScaleAttention": (
        dict(dim=W, dim_out=W, num_heads=H),
        lambda: (torch.randn(2, 3, 3, W),),
    ),
    "models.levit.Attention": (
        dict(dim=W, key_dim=4, num_heads=H, attn_ratio=2.0, resolution=3, use_conv=False),
        lambda: (tokens(9, W),),
    ),
    "models.levit.AttentionDownsample": (
        dict(in_dim=W, out_dim=W, key_dim=4, num_heads=H, attn_ratio=2.0, resolution=4, stride=2),
        lambda: (tokens(16, W),),
    ),
    "models.maxxvit.Attention2d": (dict(dim=W, dim_head=8), lambda: (image(W, 4),)),
    "models.maxxvit.AttentionCl": (
        dict(dim=W, dim_head=8, rel_pos_cls=partial(RelPosBias, window_size=(3, 3))),
        lambda: (tokens(9, W),),
    ),
    "models.maxxvit.AttentionCl thirds": (dict(dim=W, dim_head=8, head_first=False), lambda: (tokens(9, W),)),
    "models.metaformer.Attention": (dict(dim=W, head_dim=8), lambda: (tokens(7, W),)),
    "models.mobilevit.LinearSelfAttention": (dict(embed_dim=W), lambda: (torch.randn(2, W, 4, 5),)),
    "models.mvitv2.MultiScaleAttention": (
        dict(dim=W, dim_out=W, feat_size=(4, 4), num_heads=H, residual_pooling=False, has_cls_token=False),
        lambda: (tokens(16, W), [4, 4]),
    ),
    "models.nest.Attention": (dict(dim=W, num_heads=H), lambda: (torch.randn(2, 2, 7, W),)),
    "models.pvt_v2.Attention": (dict(dim=W, num_heads=H), lambda: (tokens(16, W), [4, 4])),
    "models.shvit.SHSA": (
        dict(dim=W, qk_dim=5, pdim=9, norm_layer=nn.BatchNorm2d, act_layer=nn.ReLU),
        lambda: (image(W, 4),),
    ),
    "models.swin_transformer.WindowAttention": (
        dict(dim=W, num_heads=H, window_size=(2, 2)),
        lambda: (tokens(4, W),),
    ),
    "models.swin_transformer_v2.WindowAttention": (
        dict(dim=W, num_heads=H, window_size=(2, 2), qkv_bias=False),
        lambda: (tokens(4, W),),
    ),
    "models.swin_transformer_v2_cr.WindowMultiHeadAttention": (
        dict(dim=W, num_heads=H, window_size=(2, 2)),
        lambda: (tokens(4, W),),
    ),
    "models.tiny_vit.Attention": (
        dict(dim=W, key_dim=4, num_heads=H, attn_ratio=2, resolution=(3, 3)),
        lambda: (tokens(9, W),),
    ),
    "models.tnt.Attention": (dict(dim=W, hidden_dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.twins.GlobalSubSampleAttn": (dict(dim=W, num_heads=H), lambda: (tokens(16, W), (4, 4))),
    "models.twins.LocallyGroupedAttn": (dict(dim=W, num_heads=H, ws=2), lambda: (tokens(16, W), (4, 4))),
    "models.vision_transformer.DiffParallelScalingBlock": (
        dict(dim=W, num_heads=H, mlp_ratio=2.0),
        lambda: (tokens(7, W),),
    ),
    "models.vision_transformer.ParallelScalingBlock": (
        dict(dim=W, num_heads=H, mlp_ratio=2.0),
        lambda: (tokens(7, W),),
    ),
    "models.vision_transformer_relpos.RelPosAttention": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.vision_transformer_sam.Attention": (dict(dim=W, num_heads=H), lambda: (torch.randn(2, 3, 3, W),)),
    "models.visformer.Attention": (dict(dim=W, num_heads=H), lambda: (image(W, 4),)),
    "models.volo.Attention": (dict(dim=W, num_heads=H), lambda: (torch.randn(2, 3, 3, W),)),
    "models.volo.ClassAttention": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
    "models.xcit.XCA": (dict(dim=W, num_heads=H), lambda: (tokens(7, W),)),
}


# Values pass a ReLU or a normalisation, or one head's output is the next one's input.
NOT_AFFINE = ("mobilevit", "eva.", "levit", "shvit", "msra", "Latent", "Diff")
# Relative positions, a softmax or a kernel read queries or keys alone.
NOT_BALANCED = ("coat", "lambda", "bottleneck", "halo", "mobilevit", "mvitv2", "LiteMLA")


def timm_attention(key: str) -> nn.Module:
    module, _, name = key.split()[0].rpartition(".")
    torch.manual_seed(0)
    attention = getattr(importlib.import_module(f"timm.{module}"), name)(**TIMM[key][0]).double()
    attention.eval()
    return spread(attention)


def spread(attention: nn.Module) -> nn.Module:
    """Large weights, so that attention is far from uniform; no constant is added to what is zero."""
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
            elif "crpe" in name or name.endswith("conv_lambda.bias"):
                parameter.zero_()
            elif name.endswith("weight"):
                parameter.fill_(1.0)
    return attention


def parts_of(attention: nn.Module) -> dict[str, list[tuple[nn.Module, torch.Tensor]]]:
    """Part → the fused maps that have it, with a mask of its channels; every channel is of one part."""
    found: dict[str, list[tuple[nn.Module, torch.Tensor]]] = {}
    for name, layer in layer_map(attention).items():
        part = name.rpartition(".")[2]
        if part not in ("q", "k", "v", "mlp") or "." not in name:
            continue
        out = layer.parameter.shape[1 if type(layer.module).__name__ == "Conv1D" else 0]
        rows = layer.channels(torch.arange(out)[None], 1)[0]
        stored = layer.parameter.t() if type(layer.module).__name__ == "Conv1D" else layer.parameter.flatten(1)
        assert torch.equal(layer.weight(), stored[rows])
        mask = torch.zeros(out, dtype=torch.float64)
        mask[rows] = 1
        found.setdefault(part, []).append((layer.module, mask))
    total = dict.fromkeys(maps_in(found), torch.zeros(()))
    for module, mask in (pair for maps in found.values() for pair in maps):
        total[module] = total[module] + mask
    assert all(torch.equal(covered, torch.ones_like(covered)) for covered in total.values())
    return found


def maps_in(parts) -> list[nn.Module]:
    return list({module: None for maps in parts.values() for module, _ in maps})


class Changed:
    """Calls an attention with channels of its fused maps scaled (``x * scale``) and moved (``x + step * noise``)."""

    def __init__(self, attention, parts, call):
        self.attention, self.parts, self.call = attention, parts, call

    @torch.no_grad()
    def __call__(self, scale=None, move=None, step=1.0) -> torch.Tensor:
        handles = []
        for module in maps_in(self.parts):
            factor, moved = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
            for part, maps in self.parts.items():
                for other, mask in maps:
                    if other is module:
                        factor = factor + mask * ((scale or {}).get(part, 1.0) - 1.0)
                        moved = moved + mask * (step if part in (move or ()) else 0.0)
            handles.append(module.register_forward_hook(self._hook(factor, moved)))
        try:
            out = self.call()
        finally:
            for handle in handles:
                handle.remove()
        return out[0] if isinstance(out, (tuple, list)) else out

    @staticmethod
    def _hook(factor, moved):
        def hook(module, inputs, output):
            shape = (-1, *[1] * (output.dim() - 2)) if isinstance(module, nn.Conv2d) else (-1,)
            noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
            return output * factor.view(shape) + moved.view(shape) * noise

        return hook


def equal(a, b) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)  # some compute in float32


def check(attention, call, key="") -> None:
    parts = parts_of(attention)
    assert {"k", "v"} <= set(parts) or {"q", "k"} <= set(parts), parts
    run = Changed(attention, parts, call)
    as_is = run()
    assert not equal(as_is, run(move=[part for part in parts if part != "mlp"])), "the maps have no influence"
    for part in parts:
        assert not equal(as_is, run(move=[part])), f"{part} has no influence"
    # timm's first channel attention takes its queries for what others call values.
    values, scores = ("q", ("k", "v")) if key.endswith("davit.ChannelAttention") else ("v", ("q", "k"))
    others = [part for part in parts if part in scores]
    if values in parts:
        # Without values nothing that the scores are made of is seen.
        assert equal(run(scale={values: 0.0}), run(scale={values: 0.0}, move=others))
        if not any(word in key for word in NOT_AFFINE):
            first, second = run(move=[values]), run(move=[values], step=2.0)
            assert equal(second - first, first - as_is), "the output is linear in values"
    if len(others) == 2:
        silent, heard = reversed(others) if "mobilevit" in key else others
        # A score is a product: where one factor is zero, the other does not count.
        assert equal(run(scale={silent: 0.0}), run(scale={silent: 0.0}, move=[heard]))
        if not any(word in key for word in NOT_BALANCED):
            assert equal(as_is, run(scale={silent: 2.0, heard: 0.5}))


def test_every_rule_for_timm_has_its_case_here():
    assert {f"timm.{key.split()[0]}" for key in TIMM} == {path for path in fused._RULES if path.startswith("timm.")}


@pytest.mark.parametrize("key", TIMM)
def test_the_parts_of_a_fused_map_are_what_the_attention_takes_them_for(key):
    attention = timm_attention(key)
    inputs = [x.double() if isinstance(x, torch.Tensor) else x for x in TIMM[key][1]()]
    check(attention, lambda: attention(*inputs), key)


def test_a_map_that_is_cut_in_another_place_is_noticed():
    attention = timm_attention("models.tiny_vit.Attention")
    x = tokens(9, W).double()
    attention.fused_maps = {"qkv": {"q": 16, "k": 16, "v": 16}}
    with pytest.raises(AssertionError):
        check(attention, lambda: attention(x))


SIZES = {"models.tiny_vit.Attention": (4, 4, 8), "models.maxxvit.Attention2d": (8, 8, 8)}


@pytest.mark.parametrize("key", SIZES)
def test_the_outputs_of_interleaved_parts_are_measured_apart(key):
    attention, x = timm_attention(key), TIMM[key][1]()[0].double()
    monitor = CollapseMonitor(attention)
    with monitor.observe(), torch.no_grad():
        attention(x)
    rows = {row.layer: row for row in monitor.summary() if row.kind == "output"}
    monitor.close()
    normed = attention.norm(x) if hasattr(attention, "norm") else x
    out = attention.qkv(normed).detach()
    out = out.flatten(2).transpose(1, 2) if out.dim() == 4 else out
    heads = out.unflatten(-1, (H, -1))  # [B, N, heads, channels of a head]
    for part, channels in zip("qkv", heads.split(SIZES[key], -1), strict=True):
        expected = effective_rank(channels.flatten(0, 1).flatten(1))
        assert rows[f"qkv.{part}"].effective_rank == pytest.approx(float(expected), rel=1e-6)
