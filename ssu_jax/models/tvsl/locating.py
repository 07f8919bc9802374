"""Heat maps of words, compiled: what evaluation and prediction run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssu_jax.models.tvsl.tvsl import TVSL


def make_locate(model: TVSL) -> Callable[..., tuple[Array, Array]]:
    """A jitted `locate(params, pictures, sound, classes) -> (heat, detection)`.

    pictures and sound as in types.Mixtures, classes int32 [b, k] -> heat maps of these classes in [0, 1] [b, k, y, x],
    on the grid of the encoder's places, and the probability that each class of the configuration sounds [b, u].
    """

    def locate(params, pictures, sound, classes):
        return model.apply({"params": params}, pictures, sound, classes, method=_located)

    return jax.jit(locate)


def make_locate_words(model: TVSL) -> Callable[..., tuple[Array, Array]]:
    """A jitted `locate(params, pictures, sound, ids) -> (heat, detection)`.

    ids int32 [k, l], of any words (tokenizer/phrases.py) -> their heat maps [b, k, y, x] and probabilities [b, k].
    """

    def locate(params, pictures, sound, ids):
        return model.apply({"params": params}, pictures, sound, ids, method=_words_located)

    return jax.jit(locate)


def make_find(model: TVSL, most: int) -> Callable[..., tuple[Array, Array, Array]]:
    """A jitted `find(params, pictures, sound) -> (heat, probabilities, classes)`.

    The `most` likeliest classes of the configuration: their heat maps [b, most, y, x], the probability that they sound
    [b, most], falling, and their numbers int32 [b, most].
    """

    def find(params, pictures, sound):
        return model.apply({"params": params}, pictures, sound, most, method=_found)

    return jax.jit(find)


def _found(
    model: TVSL, pictures: Any, sound: Any, most: int
) -> tuple[Float[Array, "b k y x"], Float[Array, "b k"], Int[Array, "b k"]]:
    words, encoded = model.class_words(), model.encode(pictures, sound)
    everyone = jnp.broadcast_to(words[None], (len(pictures), *words.shape))
    probabilities, classes = jax.lax.top_k(jax.nn.sigmoid(model.detect(encoded, everyone)), min(most, len(words)))
    return model.heat(encoded, words[classes]), probabilities, classes


def _located(
    model: TVSL, pictures: Any, sound: Any, classes: Int[Array, "b k"]
) -> tuple[Float[Array, "b k y x"], Float[Array, "b u"]]:
    words, encoded = model.class_words(), model.encode(pictures, sound)
    everyone = jnp.broadcast_to(words[None], (len(classes), *words.shape))
    return model.heat(encoded, words[jnp.maximum(classes, 0)]), jax.nn.sigmoid(model.detect(encoded, everyone))


def _words_located(
    model: TVSL, pictures: Any, sound: Any, ids: Int[Array, "k l"]
) -> tuple[Float[Array, "b k y x"], Float[Array, "b k"]]:
    words = model.read(ids)
    words, encoded = jnp.broadcast_to(words[None], (len(pictures), *words.shape)), model.encode(pictures, sound)
    return model.heat(encoded, words), jax.nn.sigmoid(model.detect(encoded, words))
