"""The state at step 0."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssu_jax.config import Config
from ssu_jax.training import parts
from ssu_jax.types import TrainState


def create_state(config: Config, optimizer: optax.GradientTransformation, params: dict) -> TrainState:
    """Step 0 with these weights: moments zero, the average equal to the weights.

    Moments and average exist for what learns; what `train.freeze` names is in `params` alone. To be jitted (every
    leaf then has a buffer of its own, so a step may donate them all), or looked at with `jax.eval_shape`.
    """
    learned, _ = parts.split(params, config.train.freeze)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree.map(jnp.copy, params),
        ema_params=jax.tree.map(jnp.copy, learned),
        opt_state=optimizer.init(learned),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )


def averaged(state: TrainState) -> dict:
    """The weights to evaluate with: the average of what learns, and the frozen rest as it is."""
    return parts.merge(state.params, state.ema_params)


def told_parameters(state: TrainState) -> str:
    """'3.26 M parameters', and how many of them learn where some do not."""
    total, learned = num_parameters(state.params), num_parameters(state.ema_params)
    return f"{total / 1e6:.2f} M parameters" + (f" of which {learned / 1e6:.2f} M learn" if learned < total else "")


def num_parameters(params: Any) -> int:
    """Entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
