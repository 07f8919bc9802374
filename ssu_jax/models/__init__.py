"""Models: built from a config, initialized from a key, no file and no optimizer in sight."""

from typing import Any

import jax
import jax.numpy as jnp

from ssu_jax.config import Config
from ssu_jax.models.late_fusion.late_fusion import LateFusion
from ssu_jax.models.pretraining.pretraining import PreTraining
from ssu_jax.models.ssuformer.ssuformer import SSUFormer
from ssu_jax.models.tvsl.trio_training import TrioTraining
from ssu_jax.models.tvsl.tvsl import TVSL
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.tokenizer.phrases import phrase_ids
from ssu_jax.types import Batch, Mixtures

SAME_SHAPE = 10  # leaves of one shape, on average, from which on each shape is compiled by itself


Model = SSUFormer | PreTraining | TVSL | TrioTraining | LateFusion


def build(config: Config, tokenizer: Tokenizer | CLIPTokenizer | None = None) -> Model:
    """The model a config describes; it owns no parameters.

    tokenizer: of the families tvsl and trio, which read the names of the classes; without one their shapes are right
    and their words mean nothing. Raises UserError for a class that it does not know.
    """
    if config.family == "late_fusion":
        return LateFusion(config.late_fusion)
    if config.family == "pretraining":
        return PreTraining(config.model, config.pretraining)
    if config.family in ("tvsl", "trio"):
        kind = TVSL if config.family == "tvsl" else TrioTraining
        classes = config.data.classes
        ids = phrase_ids(tokenizer, classes).tolist() if tokenizer else [[0]] * len(classes)
        return kind(config.model, config.tvsl, tuple(map(tuple, ids)))
    return SSUFormer(config.model, len(config.data.classes), config.data.max_text_tokens)


def example_batch(config: Config, batch_size: int = 1) -> Batch | Mixtures:
    """A batch of zeros with the shapes and types of a real one."""
    data = config.data
    if config.family == "tvsl":
        return _example_mixtures(config, batch_size)
    b, t, size = batch_size, data.num_frames, data.image_size
    return Batch(
        frames=jnp.zeros((b, t, size, size, 3), jnp.uint8),
        log_mel=jnp.zeros((b, t, 96, 64), jnp.float32),
        frame_valid=jnp.ones((b, t), bool),
        masks=jnp.zeros((b, t, size, size), jnp.uint8),
        text_ids=jnp.zeros((b, t, data.max_text_tokens), jnp.int32),
        source_labels=jnp.zeros((b, t, len(data.classes)), jnp.uint8),
        audible_labels=jnp.zeros((b, t, len(data.classes)), jnp.uint8),
        semantic=jnp.zeros((b, t, size, size), jnp.int8),
        scene_label=jnp.zeros((b,), jnp.int32),
        record=jnp.zeros((b,), jnp.int32),
        clip_text_ids=jnp.zeros((b, t, 0), jnp.int32),
        mask_known=jnp.ones((b, t), bool),
        text_known=jnp.ones((b, t), bool),
        source_known=jnp.ones((b, t), bool),
    )


def _example_mixtures(config: Config, b: int) -> Mixtures:
    data, k, seconds = config.data, config.tvsl.num_sources, config.tvsl.sound_seconds
    size, width = data.image_size, data.image_size * k
    sound = (seconds, 96, 64) if config.tvsl.trio == "small" else (seconds * data.sample_rate,)
    return Mixtures(
        pictures=jnp.zeros((b, size, width, 3), jnp.uint8),
        sound=jnp.zeros((b, *sound), jnp.float32),
        sources=jnp.zeros((b, k), jnp.int32),
        regions=jnp.zeros((b, k, size, width), jnp.uint8),
        region_known=jnp.ones((b, k), bool),
        present=jnp.zeros((b, len(data.classes)), jnp.uint8),
        record=jnp.zeros((b, k), jnp.int32),
    )


def init(model: Model, config: Config, key: Any) -> dict:
    """Fresh float32 parameters, a plain nested dict; nothing of the model itself is computed."""
    batch = jax.eval_shape(lambda: example_batch(config))

    def fresh(key):
        return model.lazy_init({"params": key}, batch)["params"]

    sizes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(fresh, key))]
    if len(sizes) > SAME_SHAPE * len(set(sizes)):
        # Shape by shape: one program for the thousands of leaves of a large model takes minutes to compile.
        return fresh(key)
    return jax.jit(fresh)(key)
