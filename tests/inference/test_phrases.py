"""Phrases that are asked for and their rivals, by hand; what is refused names what would have been understood."""

import numpy as np
import pytest

from ssu_jax.config import sizes
from ssu_jax.inference import guide, phrases
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import UserError

KINDS = (["bell", "dog", "police car"], ["red", "blue"], ["left", "right"])


def test_phrases_stand_between_commas():
    assert phrases.phrases_of("Bell,  red   DOG ,bell,, police_car") == ("bell", "red dog", "police car")
    for nothing in ("", " , "):
        with pytest.raises(UserError, match="names nothing"):
            phrases.phrases_of(nothing)


def test_commas_inside_the_name_of_a_class_part_nothing():
    names = ("alligators, crocodiles hissing", "bell", "crocodiles, large")
    asked = "Bell, Alligators, crocodiles hissing ,alligators, crocodiles, large"
    wanted = ("bell", "alligators, crocodiles hissing", "alligators", "crocodiles, large")
    assert phrases.phrases_of(asked, names) == wanted


def test_a_rival_differs_in_one_word_of_a_kind():
    assert phrases.rivals_of("dog", KINDS) == ["bell", "police car"]
    assert phrases.rivals_of("the red dog", KINDS) == ["the red bell", "the red police car", "the blue dog"]
    assert phrases.rivals_of("police car on the left", KINDS) == [
        "bell on the left",
        "dog on the left",
        "police car on the right",
    ]
    # CLIP knows words of no kind; a class that shares a word with them may be what they mean.
    assert phrases.rivals_of("racing car", KINDS) == ["bell", "dog"]
    assert not phrases.holds("dogs", "dog")


def test_a_phrase_without_a_class_is_asked_of_all():
    assert phrases.with_class("red", KINDS) == ["red bell", "red dog", "red police car"]
    assert phrases.with_class("red dog", KINDS) == ["red dog"]
    assert phrases.with_class("poodle", KINDS) == ["poodle"]


@pytest.fixture
def small():
    """A model of two classes and the words of its sentences."""
    config = sizes.tiny()
    config.data.classes = ("bell", "dog")
    captions = ["The red bell on the left is ringing.", "The blue dog on the right is barking."]
    return config, Tokenizer.train(captions, config.model.vocab_size)


def test_the_guide_of_a_phrase(small):
    config, tokenizer = small
    seen = []

    def embed(ids, clip_ids):
        assert clip_ids is None
        seen.extend(tokenizer.decode(row) for row in ids)
        return np.arange(len(ids), dtype=np.float32)[:, None]

    made = guide.make(["red dog"], config, tokenizer, embed)
    texts = [seen[int(number)] for number in made.texts[:, 0]]
    assert [texts[row] for row in made.names] == ["bell", "dog"]
    assert [texts[row] for row in made.asked] == ["red dog"] * len(made.asked)
    assert (made.rivals[1:].sum(1) == 1).all(), "what fills up is its own rival, which names nothing"
    assert made.rivals[1:, made.asked[0]].all()
    assert [text for text, is_rival in zip(texts, made.rivals[0], strict=True) if is_rival] == ["red bell", "blue dog"]
    for number, name in enumerate(("bell", "dog")):
        np.testing.assert_array_equal(np.flatnonzero(made.words[number]), [tokenizer.encode(name, 3)[1]])


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("bel", "'bel': the nearest that it knows are bell"),
        ("purple dog", "'purple'"),
        ("ringing", "'ringing' names no"),
    ],
)
def test_words_that_the_model_does_not_know(small, phrase, said):
    with pytest.raises(UserError) as caught:
        guide.make(["bell", phrase], *small, embed=len)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("switch", "value"), [("seg_only", True), ("text_only", True), ("mcm", False), ("rcc", False)])
def test_a_model_without_the_shared_space_is_refused(switch, value):
    config = sizes.tiny()
    guide.check(config)
    setattr(config.model, switch, value)
    with pytest.raises(UserError, match=f"model.{switch}={value}"):
        guide.check(config)
    with pytest.raises(UserError, match="late_fusion"):
        guide.check(sizes.late_fusion())
