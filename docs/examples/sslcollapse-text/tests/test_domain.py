import json
import shutil

import pytest
import torch
from parts import write_tables

from sslcollapse import Context, DataError, RecipeError, load_encoder, testing, train
from sslcollapse_text.domain import TextDomain, token_counts
from sslcollapse_text.views import PADDING


@pytest.fixture
def domain(tmp_path):
    def make(**arguments) -> TextDomain:
        return TextDomain(tmp_path, dataset=write_tables(tmp_path), **(SIZES | arguments))

    return make


SIZES = dict(batch_size=16, vocabulary=400, length=16)
RECIPE = dict(
    seed=0,
    encoder=dict(type="transformer", width=16, layers=1, heads=2),
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=3, checkpoint_every=0),
    monitor=dict(every=0),
    evaluate=dict(knn=dict(type="knn", k=5), public=dict(type="logistic")),
)


@pytest.mark.parametrize("views", [{}, dict(word_deletion=0.3, span_masking=0.3, count=3)])
@pytest.mark.parametrize("tokenizer", ["bytes", "wordpiece"])
def test_the_domain_keeps_the_protocol(domain, views, tokenizer):
    testing.check_domain(domain(views=views, tokenizer=tokenizer))


def test_views_of_simcse_are_equal_and_those_of_deletion_are_not(domain):
    for views, equal in (({}, True), (dict(word_deletion=0.5), False)):
        made = domain(views=views)
        made.load()
        first, second = next(made.batches(0, Context())).views
        assert torch.equal(first, second) == equal


def test_the_tokenizer_has_not_seen_test_texts(domain, tmp_path):
    before = domain()
    before.load()
    path = tmp_path / "test.csv"
    path.write_text(path.read_text().replace("garden", "xylophone"))
    after = TextDomain(tmp_path, dataset=before_spec(tmp_path), **SIZES)
    after.load()
    assert any("xylophone" in text for text in after.dataset.texts)
    assert after.tokenizer.to_str() == before.tokenizer.to_str()


def before_spec(folder):
    return dict(type="text_table", train=str(folder / "train.csv"), test=str(folder / "test.csv"))


def test_what_is_measured_of_a_view_are_counts_of_its_tokens():
    ids = torch.tensor([[3, 1, 3], [2, PADDING, PADDING]])
    assert token_counts(ids, 4).tolist() == [[0, 1, 0, 2], [0, 0, 1, 0]]


def test_a_view_is_drawn_as_the_text_that_it_is(domain, tmp_path):
    made = domain(views=dict(span_masking=0.5))
    made.load()
    rows = made.samples.pretrain[:3]
    assert [shown.strip() for shown in made.show(made.plain(made.take(rows)))] == [made.dataset.texts[r] for r in rows]
    view = made.augment(made.take(rows), torch.Generator().manual_seed(0))
    assert "[MASK]" in " ".join(made.show(view))
    made.draw(tmp_path / "views.png", 2, seed=0)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")


def test_a_tokenizer_file_is_used_instead_of_training_one(domain, tmp_path):
    first = domain(tokenizer="wordpiece")
    first.load()
    first.tokenizer.save(str(tmp_path / "tokenizer.json"))
    second = domain(tokenizer="tokenizer.json")
    second.load()
    assert torch.equal(first.samples.data, second.samples.data)


def test_wrong_settings_are_refused_before_data_are_read(domain, tmp_path):
    with pytest.raises(RecipeError, match=r"domain.tokenizer: must be 'bytes', 'wordpiece' or the path .* got 'words'"):
        domain(tokenizer="words")
    with pytest.raises(RecipeError, match=r"domain.batch_size: 16 samples cannot be shared equally by 3 ranks"):
        domain().check(3)


def test_span_masking_needs_a_tokenizer_with_a_mask_token(domain, tmp_path):
    first = domain(tokenizer="wordpiece")
    first.load()
    text = first.tokenizer.to_str().replace("[MASK]", "[NONE]")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises((RecipeError, DataError), match=r"views.span_masking: the tokenizer has no mask token"):
        domain(tokenizer="tokenizer.json", views=dict(span_masking=0.2)).load()


@pytest.mark.parametrize(
    ("objective", "regularizers"),
    [
        (dict(type="simclr", projector=[16, 8]), dict(werank=dict(type="werank", coefficient=1e-2))),
        (dict(type="byol", projector=[16, 8], predictor_hidden=16), {}),
    ],
)
def test_texts_go_through_training_measurement_and_evaluation_to_the_end(tmp_path, objective, regularizers):
    domain = dict(type="text", dataset=write_tables(tmp_path), **SIZES)
    recipe = dict(RECIPE, name="tiny_text", domain=domain, objective=objective, regularizers=regularizers)
    run = train(recipe, out=tmp_path / "runs")
    found = json.loads((run / "result.json").read_text())
    assert (found["status"], found["warnings"]) == ("finished", [])
    for part in ("q", "k", "v"):
        layer = found["rank"]["layers"][f"layers.0.attention.qkv.{part}"]
        assert layer["weight"]["effective_rank"] > 1
        assert layer["output"]["effective_rank"] > 1
    assert found["rank"]["shared_input"]
    assert set(found["evaluation"]) == set(found["untrained"]) == {"knn", "public"}
    assert list(found["baselines"]) == ["same_spectrum", "bag_of_words"]
    assert found["baseline_ranks"]["bag_of_words"]["representation"]["n"] == found["rank"]["representation"]["n"]
    if regularizers:
        assert "layers.0.attention.qkv.q" in found["regularizers"]["werank"]


def test_a_model_of_transformers_is_trained_exported_and_loaded_without_the_folder_of_its_first_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = dict(vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    folder = tmp_path / "published"
    transformers.BertModel(transformers.BertConfig(**config)).save_pretrained(folder)
    encoder = dict(type="huggingface_text", model="bert", config=config | {"max_position_embeddings": 512})
    encoder["pretrained_from"] = str(folder)
    domain = dict(type="text", dataset=write_tables(tmp_path), **SIZES)
    objective = dict(type="simclr", projector=[16, 8])
    run = train(dict(RECIPE, name="hub", domain=domain, encoder=encoder, objective=objective), out=tmp_path / "runs")
    assert json.loads((run / "result.json").read_text())["warnings"] == []
    shutil.rmtree(folder)
    loaded, description = load_encoder(run)
    assert loaded(torch.tensor([[3, 4, PADDING]])).shape == (1, 16)
    assert description["in_shape"] == [16, 400]
