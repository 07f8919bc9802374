"""The state at step 0."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssu_jax import models
from ssu_jax.config import Config
from ssu_jax.types import TrainState


def create_state(model: Any, config: Config, optimizer: optax.GradientTransformation) -> TrainState:
    """Initial weights from `train.seed` alone, moments zero, the average equal to the weights.

    To be jitted (no buffer is then shared between weights and average, so a step may donate them all), or
    looked at with `jax.eval_shape`.
    """
    params = models.init(model, config, jax.random.key(config.train.seed))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )


def num_parameters(params: Any) -> int:
    """Entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
