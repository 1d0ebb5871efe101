"""Parts of the fused maps of Hugging Face's transformers, by what the attention does with them; needs that library."""

import importlib

import pytest
import torch
from test_fused_maps import check, spread

from sslcollapse.layers import fused

transformers = pytest.importorskip("transformers")

TEXT = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, vocab_size=11)
GPT2 = dict(n_embd=32, n_head=4, n_layer=1, vocab_size=11, bos_token_id=0, eos_token_id=0)
ENDS = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
IMAGE = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, image_size=16, patch_size=4)

# Attention → model, configuration and its arguments, in their order; a word after the path tells variants apart.
CASES = {
    "bloom.modeling_bloom.BloomAttention": ("BloomModel", dict(hidden_size=32, n_head=4, n_layer=1, vocab_size=11)),
    "dbrx.modeling_dbrx.DbrxAttention grouped": (
        "DbrxModel",
        dict(
            d_model=32,
            n_heads=4,
            n_layers=1,
            vocab_size=11,
            attn_config=dict(kv_n_heads=2, clip_qkv=1e9, rope_theta=1e4),
            ffn_config=dict(ffn_hidden_size=8, moe_num_experts=2, moe_top_k=1),
        ),
    ),
    "decision_transformer.modeling_decision_transformer.DecisionTransformerGPT2Attention": (
        "DecisionTransformerGPT2Model",
        dict(hidden_size=32, n_head=4, n_layer=1, vocab_size=11),
    ),
    "falcon.modeling_falcon.FalconAttention": ("FalconModel", TEXT | dict(multi_query=False, alibi=False)),
    "falcon.modeling_falcon.FalconAttention one key": ("FalconModel", TEXT | dict(multi_query=True, alibi=False)),
    "falcon.modeling_falcon.FalconAttention grouped": (
        "FalconModel",
        TEXT | dict(new_decoder_architecture=True, num_kv_heads=2, alibi=False),
    ),
    "gpt2.modeling_gpt2.GPT2Attention": ("GPT2Model", GPT2),
    "gpt_bigcode.modeling_gpt_bigcode.GPTBigCodeAttention": ("GPTBigCodeModel", GPT2 | dict(multi_query=False)),
    "gpt_bigcode.modeling_gpt_bigcode.GPTBigCodeAttention one key": (
        "GPTBigCodeModel",
        GPT2 | dict(multi_query=True),
    ),
    "gpt_neox.modeling_gpt_neox.GPTNeoXAttention": ("GPTNeoXModel", TEXT | dict(intermediate_size=8)),
    "hiera.modeling_hiera.HieraMaskUnitAttention": (
        "HieraModel",
        dict(
            embed_dim=12,
            image_size=[32, 32],
            patch_stride=[4, 4],
            depths=[1],
            num_heads=[2],
            query_stride=[2, 2],
            masked_unit_size=[2, 2],
            num_query_pool=0,
        ),
    ),
    "imagegpt.modeling_imagegpt.ImageGPTAttention": ("ImageGPTModel", GPT2),
    "modernbert.modeling_modernbert.ModernBertAttention": (
        "ModernBertModel",
        TEXT | ENDS | dict(intermediate_size=8, cls_token_id=0, sep_token_id=0),
    ),
    "mpt.modeling_mpt.MptAttention": ("MptModel", dict(d_model=32, n_heads=4, n_layers=1, vocab_size=11)),
    "openai.modeling_openai.Attention": ("OpenAIGPTModel", dict(n_embd=32, n_head=4, n_layer=1, vocab_size=11)),
    "persimmon.modeling_persimmon.PersimmonAttention": (
        "PersimmonModel",
        TEXT | ENDS | dict(intermediate_size=8, qk_layernorm=False),
    ),
    "phi3.modeling_phi3.Phi3Attention grouped": (
        "Phi3Model",
        TEXT | ENDS | dict(intermediate_size=8, num_key_value_heads=2),
    ),
    "sam.modeling_sam.SamVisionSdpaAttention": (
        "SamVisionModel",
        IMAGE | dict(window_size=0, output_channels=8, mlp_dim=8, use_rel_pos=False),
    ),
    "sam.modeling_sam.SamVisionAttention": (
        "SamVisionModel",
        IMAGE | dict(window_size=0, output_channels=8, mlp_dim=8, use_rel_pos=False),
    ),
    "timesformer.modeling_timesformer.TimesformerSelfAttention": ("TimesformerModel", IMAGE | dict(num_frames=2)),
    "vitdet.modeling_vitdet.VitDetAttention": ("VitDetModel", IMAGE),
    "blip.modeling_blip.BlipAttention": ("BlipVisionModel", IMAGE),
    "blip_2.modeling_blip_2.Blip2Attention": ("Blip2VisionModel", IMAGE),
}


def model_of(key: str):
    name, arguments = CASES[key]
    config = getattr(transformers, name.removesuffix("Model") + "Config", None)
    if config is None:
        config = getattr(transformers, name.replace("GPT2Model", "") + "Config")
    torch.manual_seed(0)
    arguments = dict(arguments, attn_implementation="sdpa" if "Sdpa" in key else "eager")
    try:
        model = getattr(transformers, name)(config(**arguments))
    except AttributeError:
        module = importlib.import_module(f"transformers.models.{key.split()[0].rpartition('.')[0]}")
        model = getattr(module, name)(config(**arguments))
    return spread(model.double()).eval()


def attention_in(model, key: str):
    return next(m for m in model.modules() if type(m).__name__ == key.split()[0].rpartition(".")[2])


def test_every_rule_for_hugging_face_has_its_case_here():
    known = {path.removeprefix("transformers.models.") for path in fused._RULES if path.startswith("transformers.")}
    assert {key.split()[0] for key in CASES} == known


@pytest.mark.parametrize("key", CASES)
def test_the_parts_of_a_fused_map_are_what_the_attention_takes_them_for(key):
    model = model_of(key)
    attention, seen = attention_in(model, key), []
    attention.register_forward_hook(lambda module, inputs, output: seen.append(output))
    arguments = CASES[key][1]
    if "image_size" in arguments:
        frames = (2,) if "num_frames" in arguments else ()
        size = arguments["image_size"]
        size = size[0] if isinstance(size, list) else size
        inputs = dict(pixel_values=torch.randn(2, *frames, 3, size, size, dtype=torch.float64))
    elif "Decision" in CASES[key][0]:
        inputs = dict(inputs_embeds=torch.randn(2, 7, 32, dtype=torch.float64))
    else:
        inputs = dict(input_ids=torch.randint(0, 11, (2, 7)))

    def call():
        model(**inputs)
        return seen[-1]

    check(attention, call, key)
