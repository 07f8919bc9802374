"""AdamW with linear warm-up, cosine decay and a limit on the gradient's global norm.

The learning rate is a function of the training step, not of the optimizer's own count: a step that is
skipped because something was not finite leaves the moments and their count alone, yet time goes on.
Backbones have a rate of their own, and inside them every block (parts.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ssu_jax.config import TrainConfig
from ssu_jax.training import parts, stacks


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Gradients -> descent directions of unit learning rate: multiply by `-learning_rate` and add."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=0.9, b2=config.beta2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
    )


def learning_rate(config: TrainConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """peak * (step + 1) / warm-up, then peak * (final + (1 - final) * (1 + cos(pi * done)) / 2).

    `done` runs from 0 at the end of the warm-up to 1 at `num_steps`.
    """
    step = jnp.asarray(step, jnp.float32)
    warm = (step + 1) / max(config.warmup_steps, 1)
    done = (step - config.warmup_steps) / max(config.num_steps - config.warmup_steps, 1)
    final = config.final_learning_rate
    cosine = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
    return config.learning_rate * jnp.minimum(warm, cosine)


def learning_rates(config: TrainConfig, params: dict, step: Int[Array, ""] | int) -> dict:
    """The learning rate of every leaf: the schedule's, and for backbones times their factor (`parts.rate_factors`).

    Backbones have 0 in the first `freeze_steps` steps. Their moments gather meanwhile, so the first update after
    that is no larger than others.
    """
    rate = learning_rate(config, step)
    factors = parts.rate_factors(params, config)
    awake = jnp.asarray(step) >= config.freeze_steps

    def of(path, _) -> Float[Array, "..."]:
        factor = factors.get("/".join(key.key for key in path))
        if factor is None or (np.all(factor == 1) and not config.freeze_steps):
            return rate
        return jnp.where(awake, rate * factor, 0.0)

    return jax.tree_util.tree_map_with_path(of, params)


def decayed(params: dict) -> dict:
    """Which leaves are decayed: matrices and stacks of them; no bias, gain, or other vector.

    An expert layer stacks its biases to two axes, so the name counts beside the rank.
    """

    def is_matrix(path, leaf) -> bool:
        rank = leaf.ndim - stacks.is_stack("/".join(key.key for key in path))
        return rank >= 2 and "bias" not in str(path[-1].key)

    return jax.tree_util.tree_map_with_path(is_matrix, params)
