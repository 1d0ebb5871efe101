import subprocess
import sys
from pathlib import Path

import pytest
from parts import TOPICS, sentences

from sslcollapse import DataError, MissingDataError, RecipeError
from sslcollapse_text.tokens import encode, mask_token, read_tokenizer, train_tokenizer
from sslcollapse_text.views import PADDING

TEXTS = [text for topic in TOPICS for text in sentences(topic, 40)]


@pytest.mark.parametrize("kind", ["bytes", "wordpiece"])
def test_equal_texts_give_an_equal_tokenizer_in_another_process(kind):
    code = (
        "from parts import TOPICS, sentences; from sslcollapse_text.tokens import train_tokenizer;"
        "texts = [text for topic in TOPICS for text in sentences(topic, 40)];"
        f"print(train_tokenizer(texts, {kind!r}, 400).to_str(), end='')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert found.stdout == train_tokenizer(TEXTS, kind, 400).to_str()


def test_a_piece_of_a_word_is_no_special_token_and_does_not_match_in_a_text():
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 400)
    assert tokenizer.encode("##e").tokens == ["[UNK]", "[UNK]", "e"]
    assert tokenizer.get_vocab_size() <= 400


def test_bytes_have_no_unknown_characters():
    tokenizer = train_tokenizer(TEXTS, "bytes", 400)
    strange = "Grüße, 世界! ∂x/∂t \N{GRINNING FACE}"
    assert tokenizer.decode(tokenizer.encode(strange).ids).strip() == strange


def test_wordpieces_are_lower_case_and_unknown_characters_have_a_token():
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 400)
    assert tokenizer.encode("The DOG").ids == tokenizer.encode("the dog").ids
    assert tokenizer.encode("世").tokens == ["[UNK]"]


def test_tokens_of_one_word_have_one_number_and_numbers_go_up_by_one():
    tokenizer = train_tokenizer(TEXTS, "bytes", 400)
    ids, words = encode(tokenizer, ["the unbelievable dog", "cat"], 16)
    row = words[0][words[0] != PADDING]
    assert row[0] == 0
    assert set((row[1:] - row[:-1]).tolist()) <= {0, 1}
    assert row[-1] == 2  # three words
    assert len(row) > 3  # the second of them has several tokens
    assert ((ids == PADDING) == (words == PADDING)).all()
    assert (words[1] == 0).sum() >= 1


def test_texts_are_cut_at_the_length_asked_for():
    ids, _ = encode(train_tokenizer(TEXTS, "bytes", 400), [" ".join(["zebra"] * 50)], 7)
    assert ids.shape == (1, 7)
    assert (ids != PADDING).all()


def test_a_text_without_tokens_is_refused():
    with pytest.raises(DataError, match=r"text 1 has no tokens: ' '; leave it out"):
        encode(train_tokenizer(TEXTS, "wordpiece", 400), ["dog", " "], 8)


def test_a_tokenizer_from_a_file_is_the_one_that_was_written(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 400)
    tokenizer.save(str(path))
    read = read_tokenizer(path, 400)
    assert read.encode("the dog").ids == tokenizer.encode("the dog").ids
    assert mask_token(read) == mask_token(tokenizer) == 1
    size = tokenizer.get_vocab_size()
    with pytest.raises(DataError, match=rf"has {size} tokens, where domain.vocabulary is {size - 1}; set it to as"):
        read_tokenizer(path, size - 1)


def test_files_that_are_no_tokenizers_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"none.json is not there"):
        read_tokenizer(tmp_path / "none.json", 400)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match=r"bad.json: cannot be read as a tokenizer"):
        read_tokenizer(tmp_path / "bad.json", 400)


def test_kinds_and_sizes_that_make_no_tokenizer_are_quoted():
    with pytest.raises(RecipeError, match=r"vocabulary: must be >= 300, got 100"):
        train_tokenizer(TEXTS, "bytes", 100)
    with pytest.raises(RecipeError, match=r"must be 'bytes', 'wordpiece' or a .json file, got 'letters'"):
        train_tokenizer(TEXTS, "letters", 400)
