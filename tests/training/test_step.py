import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.training import optimizer, state, step
from ssu_jax.types import UserError


@pytest.fixture(autouse=True)
def toy_model(monkeypatch):
    toy.install(monkeypatch.setattr)


def make(config):
    made = optimizer.make_optimizer(config.train)
    params = toy.toy_init(toy.ToyModel(), config, jax.random.key(config.train.seed))
    start = jax.jit(functools.partial(state.create_state, config, made))(params)
    return start, jax.jit(step.make_train_step(toy.ToyModel(), config, made))


def batch_of(config, seed=0):
    rng = np.random.default_rng(seed)
    empty = models.example_batch(config, config.train.batch_size)
    return empty._replace(
        frames=rng.integers(0, 255, empty.frames.shape).astype(np.uint8),
        masks=rng.integers(0, 2, empty.masks.shape).astype(np.uint8),
    )


def equal(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_a_step_learns_and_counts():
    config = toy.config("", train__learning_rate=0.1, train__warmup_steps=0)
    now, train_step = make(config)
    losses = []
    for _ in range(10):
        now, metrics = train_step(now, batch_of(config))
        losses.append(float(metrics["loss"]))
    assert int(now.step) == 10
    assert int(now.skipped_steps) == 0
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_is_a_function_of_state_and_batch():
    config = toy.config("")
    start, train_step = make(config)
    first, again = train_step(start, batch_of(config)), train_step(start, batch_of(config))
    assert equal(first, again)
    other, _ = train_step(start._replace(step=start.step + 1), batch_of(config))
    assert not equal(first[0].params, other.params)  # another step, another random key


def infinite_loss(outputs, batch, config):
    return jnp.where(batch.record[0] < 0, jnp.inf, outputs.mean()), {}


def loss_without_gradient(outputs, batch, config):
    # sqrt(0 x) is 0 and its derivative infinity times 0: the loss is finite, the gradient is not.
    root = jnp.sqrt(jnp.where(batch.record[0] < 0, 0.0 * outputs.sum(), 1.0))
    return outputs.mean() + root, {}


@pytest.mark.parametrize("poisoned_loss", [infinite_loss, loss_without_gradient])
def test_what_is_not_finite_changes_nothing_but_the_counters(monkeypatch, poisoned_loss):
    monkeypatch.setattr(step.losses, "total_loss", poisoned_loss)
    config = toy.config("")
    start, train_step = make(config)
    good = batch_of(config)
    bad = good._replace(record=-jnp.ones(4, jnp.int32))
    before, _ = train_step(start, good)
    after, metrics = train_step(before, bad)
    assert not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["gradient_norm"])
    assert all(equal(getattr(before, name), getattr(after, name)) for name in ("params", "ema_params", "opt_state"))
    assert (int(after.step), int(after.skipped_steps), int(after.skipped_in_row)) == (2, 1, 1)
    assert int(metrics["skipped_in_row"]) == 1
    healed, _ = train_step(after, good)
    assert (int(healed.skipped_steps), int(healed.skipped_in_row)) == (1, 0)
    assert not equal(after.params, healed.params)


def test_accumulated_slices_give_the_gradient_of_the_whole_batch():
    whole, sliced = toy.config(""), toy.config("", train__grad_accumulation=2)
    for config in (whole, sliced):
        config.train.ground_truth_mask_share = 0.0  # takes the toy's noise away, which differs between slices
    start, train_step = make(whole)
    _, sliced_step = make(sliced)
    start, batch = start._replace(step=start.step + 5), batch_of(whole)
    (one, metrics), (two, of_slices) = train_step(start, batch), sliced_step(start, batch)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(of_slices["gradient_norm"]), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(of_slices["loss"]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_average_forgets_its_beginning_fast_and_then_keeps_its_decay():
    config = toy.config("", train__ema_decay=0.5)
    start, train_step = make(config)
    first, _ = train_step(start, batch_of(config))
    wanted = jax.tree.map(lambda mean, weight: 0.1 * mean + 0.9 * weight, start.ema_params, first.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first.ema_params, wanted)
    late = start._replace(step=jnp.int32(1000))
    later, _ = train_step(late, batch_of(config))
    wanted = jax.tree.map(lambda mean, weight: 0.5 * mean + 0.5 * weight, late.ema_params, later.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), later.ema_params, wanted)


@pytest.mark.parametrize(("at", "wanted"), [(0, 1.0), (30, 0.5), (60, 0.0), (100, 0.0)])
def test_true_masks_give_way_to_predicted_ones(at, wanted):
    config = toy.config("", train__num_steps=100).train
    assert float(step.true_mask_probability(config, at)) == pytest.approx(wanted)
    config.ground_truth_mask_share = 0.0
    assert float(step.true_mask_probability(config, 1)) == 0.0


def test_a_model_that_is_not_trained_is_refused_before_anything_is_built():
    with pytest.raises(UserError, match="config.family is late_fusion, which has nothing to train"):
        state.state_shapes(None, sizes.late_fusion(), optax.sgd(0.1))
