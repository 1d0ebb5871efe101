import json

import pytest
import torch
from torch import nn

from sslcollapse import MissingDataError, layer_map, testing
from sslcollapse_text.huggingface import HuggingFace
from sslcollapse_text.transformer import Attention, Transformer
from sslcollapse_text.views import PADDING

SHAPE = (12, 300)
BERT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def texts(lengths: list[int], seed: int = 0) -> torch.Tensor:
    ids = torch.randint(0, SHAPE[1], (len(lengths), SHAPE[0]), generator=torch.Generator().manual_seed(seed))
    return ids.masked_fill(torch.arange(SHAPE[0]) >= torch.tensor(lengths)[:, None], PADDING)


def encoders() -> list:
    made = [
        pytest.param(lambda p=p: Transformer(SHAPE, width=16, pooling=p), id=f"transformer-{p}")
        for p in ("mean", "cls")
    ]
    return [*made, pytest.param(lambda: bert(), id="huggingface")]


def bert(**arguments) -> HuggingFace:
    pytest.importorskip("transformers")
    return HuggingFace(SHAPE, model="bert", config=BERT, **arguments)


@pytest.mark.parametrize("make", encoders())
def test_a_text_is_represented_the_same_alone_and_beside_longer_ones(make):
    torch.manual_seed(0)
    encoder, ids = make().eval(), texts([3, 12, 7, 1])
    with torch.no_grad():
        together = encoder(ids)
        alone = torch.cat([encoder(row[row != PADDING][None]) for row in ids])
    assert together.shape == (4, encoder.out_dim)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", encoders())
def test_the_encoder_keeps_its_contract(make):
    testing.check_encoder(make(), texts([3, 12, 7, 5]), 4)


@pytest.mark.parametrize("make", encoders())
def test_two_passes_over_the_same_tokens_differ_in_training_and_agree_in_evaluation(make):
    encoder, ids = make(), texts([12, 9])
    first, second = encoder(ids), encoder(ids)
    assert (first - second).abs().max() > 1e-3
    encoder.eval()
    torch.testing.assert_close(encoder(ids), encoder(ids))


@pytest.mark.parametrize("make", encoders())
def test_initialising_again_draws_every_weight_anew_and_is_reproducible(make):
    encoder = make()
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    torch.manual_seed(1)
    encoder.reset_parameters()
    first = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    torch.manual_seed(1)
    encoder.reset_parameters()
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, first[name])
        if parameter.dim() == 2:
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("model", ["roberta", "electra", "distilbert", "modernbert", "mpnet"])
def test_other_models_of_transformers_are_read_and_have_no_parameter_without_a_gradient(model):
    pytest.importorskip("transformers")
    small = dict(dim=16, n_layers=1, n_heads=2, hidden_dim=32) if model == "distilbert" else BERT
    testing.check_encoder(HuggingFace(SHAPE, model=model, config=small), texts([12, 3, 7]), 3)


def test_attention_is_that_of_torchs_own_module():
    torch.manual_seed(0)
    own, theirs = Attention(16, 4, 0.0), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(own.qkv.weight)
        theirs.in_proj_bias.copy_(own.qkv.bias)
        theirs.out_proj.weight.copy_(own.out.weight)
        theirs.out_proj.bias.copy_(own.out.bias)
    present = torch.arange(6) < torch.tensor([[6], [2], [4]])
    x = torch.randn(3, 6, 16)
    expected = theirs(x, x, x, key_padding_mask=~present, need_weights=False)[0][present]
    torch.testing.assert_close(own(x[present], present), expected)


def test_layers_are_those_of_pre_norm_written_with_torchs_own_modules():
    torch.manual_seed(0)
    encoder = Transformer(SHAPE, width=16, layers=1, heads=4, hidden=24, dropout=0.0).eval()
    block = encoder.layers[0]
    theirs = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": block.attention.qkv.weight,
            "self_attn.in_proj_bias": block.attention.qkv.bias,
            **{f"self_attn.out_proj.{k}": v for k, v in block.attention.out.state_dict().items()},
            **{f"linear1.{k}": v for k, v in block.up.state_dict().items()},
            **{f"linear2.{k}": v for k, v in block.down.state_dict().items()},
            **{f"norm1.{k}": v for k, v in block.norm1.state_dict().items()},
            **{f"norm2.{k}": v for k, v in block.norm2.state_dict().items()},
        }
    )
    ids = texts([12, 12])
    x = encoder.tokens(ids) + encoder.places.weight[1 : 1 + ids.shape[1]]
    torch.testing.assert_close(encoder(ids), encoder.norm(theirs(x)).mean(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", encoders())
def test_queries_keys_and_values_are_layers_of_every_attention(make):
    names = list(layer_map(make()))
    for part in ("q", "k", "v"):
        found = [n for n in names if n.endswith((f"qkv.{part}", {"q": ".query", "k": ".key", "v": ".value"}[part]))]
        assert len(found) == 2


def test_only_tokens_pass_through_layers_so_that_spectra_have_no_rows_of_padding():
    encoder, seen = Transformer(SHAPE, width=16), []
    for block in encoder.layers:
        for layer in (block.attention.qkv, block.attention.out, block.up, block.down):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    encoder(texts([3, 12, 7]))
    assert seen == [22] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(width=10, heads=4), r"width 10 must be a multiple of heads 4"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (dict(embedding_std=0.0), r"embedding_std must be > 0, got 0.0"),
        (dict(pooling="max"), r"pooling must be 'mean' or 'cls', got 'max'"),
    ],
)
def test_arguments_that_make_no_transformer_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        Transformer(SHAPE, **arguments)


def test_shapes_of_other_data_and_views_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match=r"transformer reads texts of shape \(tokens, vocabulary\), got \(3, 32, 32\)"):
        Transformer((3, 32, 32))
    with pytest.raises(ValueError, match=r"a view of 13 tokens, where the encoder was built for 12"):
        Transformer(SHAPE)(torch.zeros(2, 13, dtype=torch.long))


def test_published_weights_are_read_from_their_folder_and_read_again(tmp_path):
    first = bert()
    first.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())  # as a recipe would do it
    encoder = HuggingFace(SHAPE, model="bert", config=config, pretrained_from=str(tmp_path), pooling="cls")
    weight = encoder.model.embeddings.word_embeddings.weight
    assert torch.equal(weight, first.model.embeddings.word_embeddings.weight)
    with torch.no_grad():
        weight.zero_()
    encoder.reset_parameters()
    assert torch.equal(weight, first.model.embeddings.word_embeddings.weight)
    with pytest.raises(
        ValueError, match=r"knows 300 tokens, the domain's vocabulary has 301; set domain.vocabulary=300"
    ):
        HuggingFace((12, 301), model="bert", config=config, pretrained_from=str(tmp_path))
    with pytest.raises(ValueError, match=r"are of another configuration than this 'bert'; give the entries of its"):
        HuggingFace(SHAPE, model="bert", config=BERT | dict(hidden_size=8), pretrained_from=str(tmp_path))


def test_models_that_transformers_does_not_have_are_refused_with_its_reason(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"transformers refuses a 'bort' with \{\}: .*bort"):
        HuggingFace(SHAPE, model="bort")
    with pytest.raises(MissingDataError, match=r"nothing cannot be loaded .*name a folder with config.json"):
        HuggingFace(SHAPE, model="bert", config=BERT, pretrained_from=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"pooling must be 'mean' or 'cls', got 'max'"):
        bert(pooling="max")
