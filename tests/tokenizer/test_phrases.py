"""Words that guide a model as ids: of our own vocabulary and of CLIP's, by hand."""

import gzip

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from ssu_jax.tokenizer import BOS, EOS, Tokenizer
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.tokenizer.phrases import phrase_ids, plain
from ssu_jax.types import UserError

CLASSES = ("acoustic guitar", "bell", "dog", "whistle")


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return Tokenizer.train(CLASSES, 16)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> CLIPTokenizer:
    """Made up as in test_clip_bpe.py: a letter and a last letter are one id."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    path = tmp_path_factory.mktemp("clip") / "merges.txt.gz"
    path.write_bytes(
        gzip.compress("\n".join(["version", *(f"{a} {b}</w>" for a in letters for b in letters)]).encode())
    )
    return CLIPTokenizer.load(path)


def test_rows_are_as_short_as_the_longest_phrase(own):
    word = {name: own.encode(name, 3)[1] for name in own.words}
    ids = phrase_ids(own, ["bell", "acoustic guitar", "dog"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [BOS, word["bell"], EOS, 0],
        [BOS, word["acoustic"], word["guitar"], EOS],
        [BOS, word["dog"], EOS, 0],
    ]
    assert phrase_ids(own, ["dog"]).shape == (1, 3)
    assert phrase_ids(own, ["dog " * 100]).shape == (1, 77)


def test_clips_rows_know_every_word(clip):
    ids = phrase_ids(clip, ["it", "fits it", "!"])
    assert ids.shape == (3, 6)  # start, f, i, ts, it, end
    np.testing.assert_array_equal(ids, clip.encode(["it", "fits it", "!"])[:, :6])
    assert (ids[:, 0] == clip.start_id).all()
    assert [(row == clip.end_id).argmax() for row in ids] == [2, 5, 2]
    assert phrase_ids(clip, ["a " * 200]).shape == (1, 77)
    assert phrase_ids(clip, ["a " * 200])[0, -1] == clip.end_id


def test_names_of_classes_are_read_as_words_are_given(own, clip):
    """MUSIC has "acoustic_guitar"; --text gives "acoustic guitar" in lower case."""
    assert plain("  Acoustic_guitar  SOLO ") == "acoustic guitar solo"
    for tokenizer in (own, clip):
        np.testing.assert_array_equal(phrase_ids(tokenizer, ["Acoustic_Guitar"]), phrase_ids(tokenizer, CLASSES[:1]))


def test_a_word_that_is_not_known_is_named_with_the_nearest(own):
    with pytest.raises(UserError, match=r"does not know 'whisle': the nearest that it knows are whistle, \w+, \w+$"):
        phrase_ids(own, ["bell", "acoustic whisle"])
