"""One training step: a pure function of the state and the batch, compiled once.

    key = fold_in(key(seed), step)
    loss, gradient = mean over the slices of the batch; the gradient of what learns, not of what is frozen
    if loss and gradient are finite: AdamW, then the average and the experts' balancing bias move; else nothing
        but the counters

The random key comes from the seed and the step, never from a state of the host, so a step can be run
again to the same bits.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ssu_jax import losses, sharding
from ssu_jax.config import Config, TrainConfig
from ssu_jax.layers.moe import losses as moe
from ssu_jax.models.pretraining import objective as pretraining
from ssu_jax.models.tvsl import objective as tvsl
from ssu_jax.models.tvsl import trio_training
from ssu_jax.training import optimizer as optimizers
from ssu_jax.training import parts
from ssu_jax.training.state import state_shapes
from ssu_jax.types import Batch, Mixtures, TrainState

Metrics = dict[str, Any]  # name -> float32 [] or int32 []; router -> {name -> float32 [l] or [l, e]}, l expert layers


def make_train_step(
    model: Any, config: Config, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch | Mixtures], tuple[TrainState, Metrics]]:
    """The step, not yet jitted. `train.batch_size` clips go in, over all devices."""

    def loss_of(frozen, learned, batch, key, mask_mix):
        params = sharding.gathered(parts.merge(learned, frozen))
        outputs = model.apply({"params": params}, batch, mask_mix, rngs={"mask": key}, train=True)
        return total_loss(outputs, batch, config)

    def train_step(state: TrainState, batch: Batch | Mixtures) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        mask_mix = true_mask_probability(config.train, state.step)
        learned, frozen = parts.split(state.params, config.train.freeze)
        gradient_of = _accumulated(functools.partial(loss_of, frozen), config.train.grad_accumulation)
        loss, terms, gradient = gradient_of(learned, batch, key, mask_mix)
        router = moe.of_sums(terms.pop("router")) if "router" in terms else {}
        norm = optax.tree.norm(gradient)
        # One NaN or infinity anywhere in the gradient makes its norm non-finite.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        old = state._replace(params=learned)
        updated = _updated(old, gradient, optimizer, config.train)
        kept = old._replace(skipped_steps=state.skipped_steps + 1, skipped_in_row=state.skipped_in_row + 1)
        new = jax.tree.map(lambda good, old: jnp.where(finite, good, old), updated, kept)
        if config.model.moe.balancing_rate and router:
            frozen = parts.balanced(frozen, router["load"], config.model.moe.balancing_rate, finite)
        new = new._replace(step=state.step + 1, params=parts.merge(new.params, frozen))
        metrics = {
            "loss": loss,
            **terms,
            "gradient_norm": norm,
            "learning_rate": optimizers.learning_rate(config.train, state.step),
            **({"true_mask_probability": mask_mix} if config.family == "ssuformer" else {}),
            "skipped_steps": new.skipped_steps,
            "skipped_in_row": new.skipped_in_row,
            **({"router": router} if router else {}),
        }
        return new, metrics

    return train_step


def jitted_step(model: Any, config: Config, optimizer: optax.GradientTransformation, mesh: Any = None) -> Any:
    """The jitted step, which takes over the memory of its state. On a mesh the state stays where it lies.

    On a mesh it is to be called, or lowered, inside `sharding.using(mesh)`.
    """
    step, shardings = make_train_step(model, config, optimizer), None
    if mesh is not None:
        places = sharding.shardings_of(state_shapes(model, config, optimizer), mesh)
        shardings = (places, sharding.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=shardings)


def total_loss(outputs: Any, batch: Batch | Mixtures, config: Config) -> tuple[Float[Array, ""], dict[str, Any]]:
    """What training makes small, and its terms: of what the model of the configuration's family gives."""
    if config.family == "pretraining":
        return pretraining.total_loss(outputs, config.pretraining)
    if config.family == "tvsl":
        return tvsl.total_loss(outputs, batch, config)
    if config.family == "trio":
        return trio_training.total_loss(outputs, batch)
    return losses.total_loss(outputs, batch, config.losses)


def true_mask_probability(config: TrainConfig, step) -> Float[Array, ""]:
    """The share of clips whose true masks MCM sees: 1 at first, linear to 0 at the set share of the run."""
    length = max(config.ground_truth_mask_share * config.num_steps, 1.0)
    return jnp.clip(1.0 - jnp.asarray(step, jnp.float32) / length, 0.0, 1.0)


def _updated(state: TrainState, gradient: dict, optimizer, config: TrainConfig) -> TrainState:
    """`state.params` here is what learns."""
    direction, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    rates = optimizers.learning_rates(config, state.params, state.step)
    params = jax.tree.map(lambda weight, rate, change: weight - rate * change, state.params, rates, direction)
    # Early on the average would still be made of random initial weights: it forgets faster then.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema_decay, (1.0 + step) / (10.0 + step))
    ema = jax.tree.map(lambda mean, weight: mean * decay + weight * (1.0 - decay), state.ema_params, params)
    return state._replace(
        params=params, ema_params=ema, opt_state=opt_state, skipped_in_row=jnp.zeros_like(state.skipped_in_row)
    )


def _accumulated(loss_of: Callable, num_slices: int) -> Callable:
    """(params, batch, key, mask_mix) -> mean loss, mean terms and mean gradient over the slices."""
    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)

    def one_slice(params, batch, key, mask_mix):
        (loss, terms), gradient = value_and_grad(params, batch, key, mask_mix)
        return loss, terms, gradient

    def many_slices(params, batch, key, mask_mix):
        def split(leaf):
            return leaf.reshape(num_slices, leaf.shape[0] // num_slices, *leaf.shape[1:])

        def add(total, part):
            values = one_slice(params, part[0], jax.random.fold_in(key, part[1]), mask_mix)
            return jax.tree.map(jnp.add, total, values), None

        # A slice is a batch of its own: every device has rows of each.
        parts = (sharding.batch_constrained(jax.tree.map(split, batch), axis=1), jnp.arange(num_slices))
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes = jax.eval_shape(lambda: one_slice(params, first[0], key, mask_mix))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, parts)
        return jax.tree.map(lambda leaf: leaf / num_slices, total)

    return one_slice if num_slices == 1 else many_slices
