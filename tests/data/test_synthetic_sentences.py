"""The world's sentences, worked by hand."""

import pytest

from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data.synthetic import sentences
from ssu_jax.data.synthetic.sentences import Mention


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ([], ""),
        ([Mention("bell", "red", "left")], "The red bell on the left is ringing."),
        ([Mention("banjo", "white", "middle")], "The white banjo in the middle is playing."),
        (
            [Mention("drum", "blue", "right"), Mention("bell", "red", "left")],
            "The red bell on the left is ringing and the blue drum on the right is beating.",
        ),
        (
            [Mention("siren", "red", "left"), Mention("bell", "red", "left"), Mention("drum", "red", "left")],
            "A bell, a drum and a siren are sounding.",
        ),
    ],
)
def test_sentences(sources, sentence):
    assert sentences.describe(sources) == sentence


def test_vowels_take_an(monkeypatch):
    three = [Mention("organ"), Mention("bell"), Mention("drum")]
    assert sentences.describe(three) == "A bell, a drum and an organ are sounding."
    assert sentences.describe([Mention("organ"), Mention("radio"), Mention("siren")]).startswith("An organ, a radio")


@pytest.mark.parametrize(
    ("centroid", "place"),
    [(0.05, "left"), (0.30, "left"), (0.31, ""), (0.36, ""), (0.37, "middle"), (0.5, "middle"), (0.63, "middle"),
     (0.64, ""), (0.69, ""), (0.70, "right"), (0.95, "right")],
)  # fmt: skip
def test_places(centroid, place):
    assert sentences.place_of(centroid) == place


def test_every_class_has_a_verb():
    assert tuple(sentences.VERBS) == SYNTHETIC_CLASSES
