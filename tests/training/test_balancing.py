"""The bias that evens the load: moved once a step, by a rule of its own, outside gradient and optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experts_toy import ExpertsToy, config, install

from ssu_jax import checkpoint, models
from ssu_jax.checkpoint import CheckpointStore, read_state
from ssu_jax.config import sizes
from ssu_jax.inference import export, loading
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.training import optimizer, parts, state, step, workdir
from ssu_jax.types import UserError

RATE = 0.02
SKEW = 2.0


@pytest.fixture(autouse=True)
def toy_model(monkeypatch):
    install(monkeypatch.setattr, SKEW)


@functools.cache
def ready(rate=RATE, slices=1, learning_rate=0.0):
    """First state and step of these options, compiled once for all tests."""
    return make(with_rate(rate, train__grad_accumulation=slices, train__learning_rate=learning_rate))


def make(made):
    optimizing, model = optimizer.make_optimizer(made.train), ExpertsToy(made, SKEW)
    start = state.first_state(model, made, optimizing, {})
    return start, jax.jit(step.make_train_step(model, made, optimizing))


def with_rate(rate=RATE, **changes):
    made = config("", **{"train__learning_rate": 0.0, "train__batch_size": 16, **changes})
    made.model.moe.balancing_rate = rate
    return made


def batch_of(made, seed=0):
    rng = np.random.default_rng(seed)
    empty = models.example_batch(made, made.train.batch_size)
    return empty._replace(frames=rng.integers(0, 255, empty.frames.shape).astype(np.uint8))


def bias_of(tree):
    return tree["experts_0"]["balancing_bias"]


def test_it_evens_the_load_of_a_skewed_router():
    now, train_step = ready()
    loads = []
    for number in range(60):
        now, metrics = train_step(now, batch_of(with_rate(), number))
        loads.append(np.asarray(metrics["router"]["load"][0]))
    assert loads[0].max() > 0.6
    assert np.mean(loads[-20:], axis=0).max() < 0.35
    assert np.mean(loads[-20:], axis=0).min() > 0.15


def test_one_step_moves_it_by_the_rate_and_nothing_else_of_the_state_knows_it():
    start, train_step = ready()
    after, metrics = train_step(start, batch_of(with_rate()))
    (load,) = np.asarray(metrics["router"]["load"])
    np.testing.assert_allclose(load.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(bias_of(after.params), RATE * np.sign(0.25 - load), rtol=1e-6)
    assert "balancing_bias" not in str(jax.tree_util.tree_structure((after.ema_params, after.opt_state)))
    assert bias_of(state.averaged(after)) is bias_of(after.params)  # what evaluation chooses by


def test_the_gradient_is_that_without_a_bias():
    """A bias of zeros chooses as none does; then norm and weights of a step are the same to the bit."""
    plain, with_bias = (ready(rate) for rate in (0.0, RATE))
    batch = batch_of(with_rate())
    (one, told), (two, same) = (train_step(start, batch) for start, train_step in (plain, with_bias))
    assert float(told["gradient_norm"]) == float(same["gradient_norm"]) > 0
    learned = parts.split(two.params, ())[0]
    jax.tree.map(np.testing.assert_array_equal, one.params, learned)
    assert jax.tree.structure(one.opt_state) == jax.tree.structure(two.opt_state)


def test_the_load_is_that_of_all_slices_of_the_batch():
    """Slices with few words count for few: the figures are those of the batch in one piece."""
    valid = np.arange(16)[:, None] % 16 < np.array([16, 12, 9, 3])[None]  # the last slices lack seconds
    batch = batch_of(with_rate())._replace(frame_valid=valid)
    (start, whole_step), (_, sliced_step) = ready(), ready(slices=4)
    (one, whole), (two, of_slices) = whole_step(start, batch), sliced_step(start, batch)
    for name in ("load", "max_load", "entropy"):
        np.testing.assert_allclose(whole["router"][name], of_slices["router"][name], rtol=1e-5)
    np.testing.assert_array_equal(bias_of(one.params), bias_of(two.params))
    assert 0 < float(whole["router"]["dropped_share"][0]) < 1


def test_a_skipped_update_leaves_it():
    made = with_rate()
    start, train_step = ready()
    before, _ = train_step(start, batch_of(made))
    broken = jax.tree.map(jnp.copy, before)
    broken.params["first"]["kernel"] = broken.params["first"]["kernel"] * jnp.nan
    after, metrics = train_step(broken, batch_of(made))
    assert int(metrics["skipped_in_row"]) == 1
    np.testing.assert_array_equal(bias_of(after.params), bias_of(before.params))
    assert np.abs(bias_of(after.params)).min() > 0


def test_a_restored_run_goes_on_to_the_same_bits_and_a_model_is_read_with_its_bias(tmp_path, monkeypatch):
    made = with_rate()
    start, train_step = ready(learning_rate=1e-3)
    middle, _ = train_step(start, batch_of(made))
    companions = workdir.companions(made, Tokenizer.train(["a bell"], 20).to_json(), {"digest": "d", "source": {}}, {})
    with CheckpointStore(tmp_path, report=pytest.fail) as store:
        store.find_newest()
        store.save(1, middle, companions)
    restored = read_state(tmp_path / "checkpoints" / "00000001", start)
    wanted, _ = train_step(middle, batch_of(made, 1))
    got, _ = train_step(restored, batch_of(made, 1))
    jax.tree.map(np.testing.assert_array_equal, wanted, got)
    model = loading.load(tmp_path)
    np.testing.assert_array_equal(bias_of(model.params), bias_of(middle.params))
    monkeypatch.setattr(export, "_card", lambda *_: "")
    export.export(tmp_path, tmp_path / "out", dtype="float32")
    np.testing.assert_array_equal(bias_of(loading.load(tmp_path / "out").params), bias_of(middle.params))


def test_weights_without_a_bias_load_when_it_is_off_and_are_refused_by_name_when_it_is_on(tmp_path):
    old, new = with_rate(0.0), with_rate()
    params = ready(0.0)[0].params
    checkpoint.write_folder(tmp_path / "old", checkpoint.Model(old, Tokenizer.train(["a"], 20), params), "float32", {})
    assert "balancing_bias" not in loading.load(tmp_path / "old").params["experts_0"]
    checkpoint.write_folder(tmp_path / "new", checkpoint.Model(new, Tokenizer.train(["a"], 20), params), "float32", {})
    with pytest.raises(UserError, match="experts_0/balancing_bias is missing"):
        loading.load(tmp_path / "new")


def test_layers_take_their_rows_in_the_order_of_their_numbers():
    frozen = {f"experts_{n}": {"balancing_bias": jnp.zeros(2)} for n in (10, 2)} | {"clip": {"kernel": jnp.ones(1)}}
    load = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    moved = parts.balanced(frozen, load, 0.5, jnp.array(True))
    np.testing.assert_array_equal(moved["experts_2"]["balancing_bias"], [-0.5, 0.5])
    np.testing.assert_array_equal(moved["experts_10"]["balancing_bias"], [0.5, -0.5])
    np.testing.assert_array_equal(moved["clip"]["kernel"], 1.0)
    stacked = {"experts": {"balancing_bias": jnp.zeros((2, 2))}}
    moved = parts.balanced(stacked, load, 0.5, jnp.array(True))
    np.testing.assert_array_equal(moved["experts"]["balancing_bias"], [[-0.5, 0.5], [0.5, -0.5]])


def test_it_is_refused_where_experts_choose():
    made = sizes.tiny()
    made.model.moe.balancing_rate, made.model.moe.choice = 1e-3, "experts"
    with pytest.raises(UserError, match=r"balancing_rate evens what tokens choose"):
        made.validate()
