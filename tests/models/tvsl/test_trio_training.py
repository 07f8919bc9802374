"""The contrast that trains the small trio, worked by hand, and what is not known costs nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.models.tvsl import trio_training
from ssu_jax.models.tvsl.trio_training import Similarities

CLASSES = ("bell", "dog", "drum")


def batch():
    """Two clips of two seconds. Seen: bell; bell and dog; dog; nothing. Heard: bell; dog; nothing; drum."""
    config = sizes.tiny()
    config.data.num_frames, config.data.classes = 2, CLASSES
    made = models.example_batch(config, 2)
    semantic = np.zeros((2, 2, 32, 32), np.int8)
    semantic[0, :, :4], semantic[0, 1, 8:12], semantic[1, 0, 8:12] = 1, 2, 2
    heard = np.zeros((2, 2, 3), np.uint8)
    heard[0, 0, 0] = heard[0, 1, 1] = heard[1, 1, 2] = 1
    return made._replace(semantic=jnp.asarray(semantic), audible_labels=jnp.asarray(heard))


def answers(seed: int = 0) -> Similarities:
    rng = np.random.default_rng(seed)
    return Similarities(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 3), (4, 3), (4, 4))))


def entropy(logits, truth):
    probability = 1 / (1 + np.exp(-np.asarray(logits, float)))
    return -(truth * np.log(probability) + (1 - truth) * np.log(1 - probability))


def test_the_maximum_is_smooth_and_over_the_places():
    x = jnp.asarray([[[0.0, 5.0], [2.0, 5.0]]])
    wanted = [np.log((1 + np.exp(2.0)) / 2), 5.0]
    np.testing.assert_allclose(trio_training.smooth_maximum(x)[0], wanted, rtol=1e-6)


def test_the_terms_by_hand():
    found = answers()
    terms = trio_training.terms(found, batch())
    seen = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], float)
    heard = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], float)
    assert float(terms["image_text"]) == pytest.approx(entropy(found.image_text, seen).sum(axis=1).mean(), abs=1e-5)
    assert float(terms["sound_text"]) == pytest.approx(entropy(found.sound_text, heard).sum(axis=1).mean(), abs=1e-5)
    shared = (seen @ heard.T > 0).astype(float)
    assert shared.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert float(terms["sound_image"]) == pytest.approx(entropy(found.sound_image, shared).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("field", "blank", "free"),
    [
        ("semantic", -1, ("image_text", "sound_image")),
        ("source_known", False, ("sound_text", "sound_image")),
        ("frame_valid", False, ("image_text", "sound_text", "sound_image")),
    ],
)
def test_seconds_of_which_something_is_not_known_cost_nothing_there(field, blank, free):
    """The last second: whatever is answered of it, the terms that it is left out of stay."""
    made, found = batch(), answers()
    value = getattr(made, field)
    made = made._replace(**{field: value.at[1, 1].set(blank)})
    loud = {"image_text": found.image_text.at[3].add(9.0), "sound_text": found.sound_text.at[3].add(9.0)}
    others = found.sound_image.at[3].add(9.0) if field == "semantic" else found.sound_image.at[:, 3].add(9.0)
    changed = Similarities(**loud, sound_image=others)
    before, after = trio_training.terms(found, made), trio_training.terms(changed, made)
    for name in trio_training.TERMS:
        assert (float(before[name]) == pytest.approx(float(after[name]), abs=1e-6)) == (name in free), name
