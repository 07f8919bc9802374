"""Frozen parts in a step and in a run: they stay bit for bit, cost nothing, and checkpoints hold them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from ssu_jax import checkpoint, models
from ssu_jax.checkpoint import store
from ssu_jax.training import loop, optimizer, parts, state, step
from ssu_jax.training.interruption import Interruption
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


def run(config, num_steps):
    now, train_step = make(config)
    for number in range(num_steps):
        now, _ = train_step(now, batch_of(config, number))
    return now


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def moments(opt_state):
    found = jax.tree.leaves(opt_state, is_leaf=lambda part: hasattr(part, "mu"))
    return next(part for part in found if hasattr(part, "mu"))


@pytest.mark.parametrize("slices", [1, 2])
def test_frozen_weights_stay_to_the_bit_and_have_no_moments_and_no_average(slices):
    config = toy.config("", train__freeze=("first",), train__weight_decay=0.5, train__grad_accumulation=slices)
    start, _ = make(config)
    now = run(config, 4)
    assert np.array_equal(now.params["first"]["kernel"], start.params["first"]["kernel"])
    assert not np.array_equal(now.params["second"]["kernel"], start.params["second"]["kernel"])
    assert not np.array_equal(now.params["second"]["bias"], start.params["second"]["bias"])
    adam = moments(now.opt_state)
    assert set(adam.mu) == set(adam.nu) == set(now.ema_params) == {"second"}
    averaged = state.averaged(now)
    assert jax.tree.structure(averaged) == jax.tree.structure(now.params)
    assert np.array_equal(averaged["first"]["kernel"], now.params["first"]["kernel"])
    assert np.array_equal(averaged["second"]["kernel"], now.ema_params["second"]["kernel"])


def test_what_learns_moves_as_if_nothing_were_frozen():
    # One step, no limit on the gradient's norm (which is taken over what learns).
    options = {"train__clip_norm": 0.0, "train__warmup_steps": 0, "train__learning_rate": 0.1}
    free = run(toy.config("", **options), 1)
    part = run(toy.config("", train__freeze=("first",), **options), 1)
    assert same(part.params["second"], free.params["second"])
    assert same(part.ema_params["second"], free.ema_params["second"])
    assert not same(part.params["first"], free.params["first"])


def test_no_gradient_is_computed_for_frozen_weights():
    def products(freeze):
        config = toy.config("", train__freeze=freeze)
        start, train_step = make(config)
        return str(jax.make_jaxpr(train_step)(start, batch_of(config))).count("dot_general")

    # Forward two. Backward: the second kernel's own gradient, what flows to the first layer, the first kernel's own.
    assert products(()) == 5
    assert products(("first",)) == 3


def test_a_skipped_step_leaves_all_alone(monkeypatch):
    def infinite(outputs, batch, config):
        return jnp.where(batch.record[0] < 0, jnp.inf, (outputs**2).mean()), {}

    monkeypatch.setattr(step.losses, "total_loss", infinite)
    config = toy.config("", train__freeze=("second/bias",))
    now, train_step = make(config)
    now, _ = train_step(now, batch_of(config))
    after, _ = train_step(now, batch_of(config)._replace(record=-jnp.ones(4, jnp.int32)))
    assert all(same(getattr(now, name), getattr(after, name)) for name in ("params", "ema_params", "opt_state"))
    assert (int(after.step), int(after.skipped_steps)) == (2, 1)


def plain_step(config, made):
    """The step with one rate and nothing frozen, written down a second time."""

    def one_step(now, batch):
        key = jax.random.fold_in(jax.random.key(config.train.seed), now.step)
        mix = step.true_mask_probability(config.train, now.step)

        def loss_of(params):
            outputs = toy.ToyModel().apply({"params": params}, batch, mix, rngs={"mask": key}, train=True)
            return toy.toy_loss(outputs, batch, config.losses)[0]

        loss, gradient = jax.value_and_grad(loss_of)(now.params)
        direction, opt_state = made.update(gradient, now.opt_state, now.params)
        rate = optimizer.learning_rate(config.train, now.step)
        params = jax.tree.map(lambda weight, change: weight - rate * change, now.params, direction)
        count = now.step.astype(jnp.float32)
        decay = jnp.minimum(config.train.ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda mean, weight: mean * decay + weight * (1 - decay), now.ema_params, params)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        new = now._replace(params=params, ema_params=ema, opt_state=opt_state)
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, now)._replace(step=now.step + 1)

    return jax.jit(one_step)


def test_defaults_change_no_bit():
    config = toy.config("", train__backbones=("first",))
    made = optimizer.make_optimizer(config.train)
    plain, _ = make(config)
    one_step = plain_step(config, made)
    for number in range(4):
        plain = one_step(plain, batch_of(config, number))
    assert same(plain, run(config, 4))


def test_backbones_wait_and_then_take_their_own_rate():
    options = {"train__backbones": ("first",), "train__freeze_steps": 3, "train__warmup_steps": 0}
    config = toy.config("", train__backbone_learning_rate=0.25, **options)
    start, train_step = make(config)
    now = start
    for number in range(3):
        now, _ = train_step(now, batch_of(config, number))
        assert np.array_equal(now.params["first"]["kernel"], start.params["first"]["kernel"])
        assert not np.array_equal(now.params["second"]["kernel"], start.params["second"]["kernel"])
    quarter, _ = train_step(now, batch_of(config, 3))
    _, whole_step = make(toy.config("", **options))
    whole, _ = whole_step(now, batch_of(config, 3))
    change = [np.asarray(after.params["first"]["kernel"] - now.params["first"]["kernel"]) for after in (quarter, whole)]
    np.testing.assert_allclose(change[0], 0.25 * change[1], rtol=2e-3, atol=1e-8)  # the weights round, not the rates
    assert np.abs(change[0]).min() > 0
    assert same(quarter.params["second"], whole.params["second"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_records(tmp_path_factory.mktemp("records"))


def test_a_run_with_a_frozen_part_resumes_to_the_same_bits_and_is_read_as_a_whole(data, tmp_path, monkeypatch, capsys):
    config = toy.config(data, train__freeze=("first",), eval__every_steps=6)
    whole = jax.device_get(loop.train(config, tmp_path / "whole"))
    assert "of which 0.00 M learn" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        polls = []
        patch.setattr(loop.CheckpointStore, "poll", lambda self: polls.append(1))
        patch.setattr(Interruption, "requested", property(lambda self: len(polls) >= 7))
        loop.train(config, tmp_path / "cut")
    resumed = jax.device_get(loop.train(config, tmp_path / "cut"))
    assert "from step 7" in capsys.readouterr().out
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    assert same(whole, resumed)
    arrays = store.read_arrays(tmp_path / "cut/checkpoints/00000012")
    names = {name for name in parts.flat(arrays) if "first" in name}
    assert names == {"params/first/kernel"}
    read = checkpoint.load_model(tmp_path / "cut/checkpoints/00000012")
    assert same(read.params, state.averaged(resumed))


def test_another_frozen_part_is_another_run(data, tmp_path):
    loop.train(toy.config(data, train__num_steps=3, train__freeze=("first",)), tmp_path)
    with pytest.raises(UserError, match="train.freeze is"):
        loop.train(toy.config(data, train__num_steps=3), tmp_path)


def test_an_unknown_name_is_told_before_anything_is_written(data, tmp_path):
    with pytest.raises(UserError, match="train.freeze names 'frist', .* did you mean first"):
        loop.train(toy.config(data, train__freeze=("frist",)), tmp_path)
    assert not (tmp_path / "config.json").exists()
