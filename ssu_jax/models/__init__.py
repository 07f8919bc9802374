"""Models: built from a config, initialized from a key, no file and no optimizer in sight."""

from typing import Any

import jax
import jax.numpy as jnp

from ssu_jax.config import Config
from ssu_jax.models.late_fusion.late_fusion import LateFusion
from ssu_jax.models.pretraining.pretraining import PreTraining
from ssu_jax.models.ssuformer.ssuformer import SSUFormer
from ssu_jax.types import Batch

SAME_SHAPE = 10  # leaves of one shape, on average, from which on each shape is compiled by itself


def build(config: Config) -> SSUFormer | PreTraining | LateFusion:
    """The model a config describes; it owns no parameters."""
    if config.family == "late_fusion":
        return LateFusion(config.late_fusion)
    if config.family == "pretraining":
        return PreTraining(config.model, config.pretraining)
    return SSUFormer(config.model, len(config.data.classes), config.data.max_text_tokens)


def example_batch(config: Config, batch_size: int = 1) -> Batch:
    """A batch of zeros with the shapes and types of a real one."""
    data = config.data
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


def init(model: SSUFormer | PreTraining | LateFusion, config: Config, key: Any) -> dict:
    """Fresh float32 parameters, a plain nested dict; nothing of the model itself is computed."""
    batch = jax.eval_shape(lambda: example_batch(config))

    def fresh(key):
        return model.lazy_init({"params": key}, batch)["params"]

    sizes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(fresh, key))]
    if len(sizes) > SAME_SHAPE * len(set(sizes)):
        # Shape by shape: one program for the thousands of leaves of a large model takes minutes to compile.
        return fresh(key)
    return jax.jit(fresh)(key)
