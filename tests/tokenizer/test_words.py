"""Ids are the same everywhere, and sentences survive the way there and back."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssu_jax.data.synthetic import sentences
from ssu_jax.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from ssu_jax.types import UserError

COLOURS = ("red", "blue", "green")
TEXT = ["The red bell rings.", "The blue bell rings.", "A dog, a bell and a drum ring.", ""]


def world_sentences() -> list[str]:
    names = list(sentences.VERBS)
    one = [
        [sentences.Mention(name, colour, place)]
        for name, colour, place in itertools.product(names, COLOURS, sentences.PLACES)
    ]
    pairs = [[*a, *b] for a, b in zip(one, one[31:], strict=False) if a[0].name != b[0].name]
    threes = [[sentences.Mention(name) for name in chosen] for chosen in itertools.combinations(names, 3)]
    return ["", *(sentences.describe(sources) for sources in (*one, *pairs, *threes))]


@pytest.fixture(scope="module")
def world() -> Tokenizer:
    return Tokenizer.train(world_sentences(), 160)


def test_ids_by_frequency_then_alphabet():
    tokenizer = Tokenizer.train(TEXT, 100)
    assert tokenizer.size == 4 + 13
    # "." and "bell" stand in three sentences, "The", "a" and "rings" in two.
    assert tokenizer.encode(". bell The a rings", 8).tolist() == [BOS, 4, 5, 6, 7, 8, EOS, PAD]
    again = Tokenizer.train(reversed(TEXT), 100)
    assert again.to_json() == tokenizer.to_json()


def test_vocabulary_is_bounded_and_rare_words_unknown():
    tokenizer = Tokenizer.train(TEXT, 8)
    assert tokenizer.size == 8
    ids = tokenizer.encode("The dog rings.", 7)
    assert ids.tolist() == [BOS, 6, UNK, UNK, 4, EOS, PAD]
    assert tokenizer.decode(ids) == "The [UNK] [UNK]."


def test_silence_and_long_sentences():
    tokenizer = Tokenizer.train(TEXT, 100)
    silence = tokenizer.encode("", 5)
    assert silence.dtype == np.int32
    assert silence.tolist() == [BOS, EOS, PAD, PAD, PAD]
    cut = tokenizer.encode("The red bell rings.", 5)
    assert tokenizer.decode(cut) == "The red bell"
    assert cut[-1] == EOS


def test_case_is_kept_and_special_words_are_not_smuggled_in():
    tokenizer = Tokenizer.train(TEXT, 100)
    assert tokenizer.encode("the", 3)[1] == UNK
    bell = tokenizer.encode("bell", 3)[1]
    assert tokenizer.encode("bell [EOS] bell", 8).tolist() == [BOS, bell, UNK, UNK, UNK, bell, EOS, PAD]


def test_decode_stops_at_the_end_and_passes_over_unknown_numbers(world):
    ids = [*world.encode("The red bell on the left is ringing.", 32), 5, 6]
    assert world.decode(ids) == "The red bell on the left is ringing."
    assert world.decode([BOS, 9999, EOS]) == "[UNK]"
    assert world.decode([PAD, PAD]) == ""


def test_every_sentence_of_the_world_survives(world):
    for text in world_sentences():
        assert world.decode(world.encode(text, 32)) == text
        assert UNK not in world.encode(text, 32)


@given(st.lists(st.sampled_from(["a", "dog", "x-ray", "dog's", "no", "off-screen"]), min_size=1, max_size=8),
       st.sampled_from([".", "!", "?", ""]), st.booleans())  # fmt: skip
def test_plain_punctuation_survives(words, end, comma):
    text = (", " if comma else " ").join(words) + end
    tokenizer = Tokenizer.train([text], 100)
    assert tokenizer.decode(tokenizer.encode(text, 64)) == text


def test_saved_and_pickled_copies_are_equal(tmp_path, world):
    world.save(tmp_path / "tokenizer.json")
    text = "The red bell on the left is ringing."
    copies = (
        Tokenizer.load(tmp_path / "tokenizer.json"),
        Tokenizer.from_json(world.to_json()),
        pickle.loads(pickle.dumps(world)),
    )
    for copy in copies:
        assert copy.size == world.size
        assert copy.encode(text, 32).tolist() == world.encode(text, 32).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"}', b"[1, 2"])
def test_files_that_are_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="tokenizer") as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_foreign_ids(tmp_path, world):
    with pytest.raises(UserError, match="FileNotFoundError"):
        Tokenizer.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="ids 0 to 3"):
        Tokenizer.from_json(world.to_json().replace("[PAD]", "[pad]"))
