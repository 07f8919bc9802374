"""T-VSL: what words take out of pictures and sounds, and how the two modes differ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ssu_jax import models
from ssu_jax.config import Config, sizes
from ssu_jax.models.tvsl import locating, tvsl
from ssu_jax.models.tvsl.tvsl import Encoded
from ssu_jax.tokenizer import Tokenizer

NUM_CLASSES = 4
BELL, DOG, DRUM, HORN = np.eye(NUM_CLASSES, 8, dtype=np.float32)  # words, in a space of 8


def tiny(mode: str = "corrected", **options) -> Config:
    config, small = sizes.tvsl(), sizes.tiny()
    config.model, config.data.image_size = small.model, small.data.image_size
    config.model.dtype = "float32"
    config.data.classes = ("bell", "dog", "drum", "horn")
    config.tvsl.mode, config.tvsl.width = mode, 8
    for name, value in options.items():
        setattr(config.tvsl, name, value)
    return config.validate()


@functools.cache
def fresh(mode: str, text_guidance: bool):
    config = tiny(mode, text_guidance=text_guidance)
    model = models.build(config, Tokenizer.train(config.data.classes, config.model.vocab_size))
    return model, models.init(model, config, jax.random.key(0))


def built(config: Config):
    """The model and fresh parameters: the projections are still the identity."""
    return fresh(config.tvsl.mode, config.tvsl.text_guidance)


def scene() -> Encoded:
    """Two places in a row of two pictures: a bell at (0, 1), a dog at (1, 2), grass elsewhere; the bell rings."""
    grass = np.zeros(8, np.float32)
    grass[7] = 1.0
    places = np.tile(grass, (1, 2, 4, 1))
    places[0, 0, 1], places[0, 1, 2] = 3.0 * BELL + 0.1 * grass, 0.5 * DOG + 0.1 * grass
    moments = np.stack([2.0 * BELL, 0.3 * grass])[None]
    return Encoded(jnp.asarray(places), jnp.asarray(moments))


def of(model, params, method, *args):
    return np.asarray(model.apply({"params": params}, *map(jnp.asarray, args), method=method))


def heat_of(config: Config, words: np.ndarray) -> np.ndarray:
    model, params = built(config)
    return np.asarray(model.apply({"params": params}, scene(), jnp.asarray(words), method="heat"))


def test_a_projection_begins_as_the_identity_and_ends_as_its_mlp():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    params = tvsl.Blend().init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(tvsl.Blend().apply({"params": params}, x), x)
    assert params["hidden"]["kernel"].shape == (5, 10)
    alone = np.asarray(tvsl.Blend().apply({"params": params | {"weight": jnp.zeros(())}}, x))
    halfway = np.asarray(tvsl.Blend().apply({"params": params | {"weight": jnp.float32(0.5)}}, x))
    np.testing.assert_allclose(halfway, 0.5 * (np.asarray(x) + alone), atol=1e-6)


def test_the_word_that_is_heard_and_seen_lights_its_place_and_the_others_stay_dark():
    heat = heat_of(tiny(), np.stack([BELL, DOG, DRUM])[None])[0]
    assert heat.shape == (3, 2, 4)
    bell, dog, drum = heat
    assert np.unravel_index(bell.argmax(), bell.shape) == (0, 1)
    assert bell.max() > 0.99
    assert np.sort(bell.ravel())[-2] < 0.1
    assert dog.max() < 0.5, "it is seen and silent"
    assert drum.max() < 0.01, "it is neither seen nor heard"


def test_the_released_map_is_turned_around_and_says_nothing_of_wrong_words():
    bell, drum = heat_of(tiny("released"), np.stack([BELL, DRUM])[None])[0]
    assert bell[0, 1] == bell.min() == 0.0
    assert bell.max() == 1.0
    assert drum.max() > 0.5 or np.ptp(drum) == 0  # scaled to the full range whatever it is


def test_corrected_guidance_is_attention_at_the_trios_scale():
    model, params = built(tiny())
    guided = model.apply({"params": params}, scene(), jnp.asarray(BELL)[None, None], method="guide")
    cosine = np.zeros(8)
    cosine[1] = 3.0 / np.hypot(3.0, 0.1)
    np.testing.assert_allclose(guided.agreement[0, 0], cosine, atol=1e-5)
    share = np.exp(10.0 * cosine[1]) / (np.exp(10.0 * cosine[1]) + 7)  # the small trio begins at a scale of 10
    np.testing.assert_allclose(guided.seen[0, 0, 0], 3.0 * share, rtol=1e-4)


def test_released_guidance_is_the_cosine_over_its_norm_among_the_places():
    config = tiny("released")
    model, params = built(config)
    guided = model.apply({"params": params}, scene(), jnp.asarray(BELL)[None, None], method="guide")
    cosine = np.zeros(8)
    cosine[1] = 3.0 / np.hypot(3.0, 0.1)
    factor = cosine / np.linalg.norm(cosine)
    np.testing.assert_allclose(guided.agreement[0, 0], factor, atol=1e-5)
    np.testing.assert_allclose(guided.seen[0, 0, 0], 3.0 * factor[1] / 8, rtol=1e-5)


def test_without_text_guidance_every_word_has_the_same_map():
    config = tiny(text_guidance=False)
    model, params = built(config)
    encoded, words = scene(), jnp.asarray(np.stack([BELL, DOG])[None])
    heat = np.asarray(model.apply({"params": params}, encoded, words, method="heat"))
    sounds = jax.nn.sigmoid(model.apply({"params": params}, encoded, words, method="detect"))
    scaled = heat[0] / np.asarray(sounds)[0][:, None, None]
    np.testing.assert_allclose(scaled[0], scaled[1], atol=1e-5)
    assert scaled[0].max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("mode", ["corrected", "released"])
def test_any_number_of_sources_and_words_in_any_order(mode):
    config = tiny(mode)
    model, params = built(config)
    locate = locating.make_locate(model)
    rng = np.random.default_rng(0)
    for k in (1, 3):
        pictures = rng.integers(0, 256, (2, 32, 32 * k, 3), dtype=np.uint8)
        sound = rng.normal(size=(2, 1, 96, 64)).astype(np.float32)
        classes = np.tile(np.arange(k, dtype=np.int32), (2, 1))
        heat, detection = locate(params, pictures, sound, classes)
        assert heat.shape == (2, k, 8, 8 * k)
        assert detection.shape == (2, NUM_CLASSES)
        backward, again = locate(params, pictures, sound, classes[:, ::-1])
        np.testing.assert_allclose(backward[:, ::-1], heat, atol=1e-5)
        np.testing.assert_allclose(again, detection, atol=1e-6)


def test_free_words_are_located_as_the_classes_of_the_same_name():
    config = tiny()
    model, params = built(config)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
    sound = rng.normal(size=(1, 1, 96, 64)).astype(np.float32)
    heat, detection = locating.make_locate(model)(params, pictures, sound, np.array([[2, 0]], np.int32))
    ids = np.array(model.class_ids, np.int32)[[2, 0]]
    free, sounds = locating.make_locate_words(model)(params, pictures, sound, ids)
    np.testing.assert_allclose(free, heat, atol=1e-6)
    np.testing.assert_allclose(sounds[0], detection[0, [2, 0]], atol=1e-6)


def test_the_likeliest_classes_are_found_in_falling_order():
    config = tiny()
    model, params = built(config)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    sound = rng.normal(size=(2, 1, 96, 64)).astype(np.float32)
    heat, probabilities, classes = map(np.asarray, locating.make_find(model, 3)(params, pictures, sound))
    given, detection = locating.make_locate(model)(params, pictures, sound, classes)
    np.testing.assert_array_equal(classes, np.argsort(-np.asarray(detection), axis=1)[:, :3])
    np.testing.assert_allclose(probabilities, np.take_along_axis(np.asarray(detection), classes, axis=1), atol=1e-6)
    np.testing.assert_allclose(heat, given, atol=1e-6)


def test_the_trainable_part_at_the_papers_size():
    """Six projections and the fusion: 33.58 M, as counted for the release; corrected adds a weight and a threshold."""
    counts = {}
    for mode in ("released", "corrected"):
        config = sizes.tvsl_audioclip()
        config.tvsl.mode = mode
        model = models.build(config)
        shapes = jax.eval_shape(lambda m=model, c=config: models.init(m, c, jax.random.key(0)))
        counts[mode] = sum(leaf.size for path, leaf in flatten_dict(shapes).items() if path[0] != "trio")
    six, fusion = 6 * (2 * 1024 * 2048 + 2048 + 1024 + 1), 2 * (2048 * 2048 + 2048)
    assert counts["released"] == six + fusion + 1 == 33_576_967
    assert counts["corrected"] == counts["released"] + 2


def test_classes_that_the_words_do_not_know_are_named():
    from ssu_jax.types import UserError

    config = tiny()
    with pytest.raises(UserError, match="does not know 'horn'.*nearest"):
        models.build(config, Tokenizer.train(("bell", "dog", "drum"), 16))
