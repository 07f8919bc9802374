"""The state at step 0, and where it lies."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssu_jax import models, sharding
from ssu_jax.config import Config
from ssu_jax.training import parts
from ssu_jax.types import TrainState, UserError


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


def state_shapes(model: Any, config: Config, optimizer: optax.GradientTransformation, mesh: Any = None) -> TrainState:
    """The shapes of the state, with their places on the mesh where there is one; nothing is computed.

    Raises UserError for a model that is not trained.
    """
    if config.family == "late_fusion":
        raise UserError(f"config.family is {config.family}, which has nothing to train: take ssuformer")
    shapes = jax.eval_shape(functools.partial(_fresh, model, config, optimizer), {})
    return sharding.with_shardings(shapes, sharding.shardings_of(shapes, mesh))


def first_state(
    model: Any, config: Config, optimizer: optax.GradientTransformation, given: dict, mesh: Any = None
) -> TrainState:
    """Step 0 from the seed, `given` weights (published ones, a tree of some of the leaves) in their places.

    Where the mesh cuts parameters, every device makes its own part of them: no device or host holds them all.
    """
    shardings = sharding.shardings_of(state_shapes(model, config, optimizer), mesh)
    if sharding.is_cut(shardings):
        fresh = jax.jit(functools.partial(_fresh, model, config, optimizer), out_shardings=shardings)
        return sharding.within(mesh, fresh)(given)
    create = jax.jit(functools.partial(create_state, config, optimizer), out_shardings=shardings)
    return create(parts.merge(models.init(model, config, jax.random.key(config.train.seed)), given))


def _fresh(model: Any, config: Config, optimizer: optax.GradientTransformation, given: dict) -> TrainState:
    random = models.init(model, config, jax.random.key(config.train.seed))
    return create_state(config, optimizer, parts.merge(random, given))


def averaged(state: TrainState) -> dict:
    """The weights to evaluate with: the average of what learns, and the frozen rest as it is."""
    return parts.merge(state.params, state.ema_params)


def told_parameters(state: TrainState) -> str:
    """'3.26 M parameters', and how many of them learn where some do not."""
    total, learned = num_parameters(state.params), num_parameters(state.ema_params)
    told = f"{total / 1e6:.2f} M parameters"
    # Not for the few numbers that balance experts.
    return told + (f" of which {learned / 1e6:.2f} M learn" if learned < 0.999 * total else "")


def num_parameters(params: Any) -> int:
    """Entries of all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
