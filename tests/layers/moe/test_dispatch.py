"""Tokens reach their experts and come back: by hand, against the dense oracle, and what overflow drops."""

import re

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssu_jax.layers.moe import dispatch, grouped
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing, route

_plan = jax.jit(dispatch.make_plan, static_argnames=("num_experts", "capacity"))


def _routing(ids, num_experts, weights=None):
    """A routing with given ids; only ids, weights and the number of experts matter to dispatch."""
    ids = jnp.asarray(ids, jnp.int32)
    weights = jnp.ones(ids.shape) if weights is None else jnp.asarray(weights, jnp.float32)
    zeros = jnp.zeros((ids.shape[0], num_experts))
    return Routing(ids, jnp.where(ids < num_experts, weights, 0.0), zeros, zeros)


def _random_case(seed, tokens=23, experts=4, top_k=2, width=5, hidden=7, share_of_padding=0.2):
    keys = jax.random.split(jax.random.key(seed), 5)
    mask = jax.random.uniform(keys[0], (tokens,)) >= share_of_padding
    logits = jax.random.normal(keys[1], (tokens, experts))
    x = jax.random.normal(keys[2], (tokens, width))
    w1 = jax.random.normal(keys[3], (experts, width, hidden))
    w2 = jax.random.normal(keys[4], (experts, hidden, width))
    return x, logits, mask, w1, w2


def _network(w1, w2):
    """With biases and prompts: an empty slot must not leak them."""
    ones = jnp.ones(w2.shape[::2])
    return Network(w1, jnp.full(w1.shape[::2], 0.3), w2, 0.1 * ones, 0.2 * ones)


def _assert_near(ours, theirs):
    """To 1e-5 of the largest number."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_capacity_by_hand():
    assert dispatch.capacity_of(10, 4, 1, 1.0) == 3  # 2.5 rounded up
    assert dispatch.capacity_of(10, 4, 2, 1.5) == 8  # 7.5 rounded up
    assert dispatch.capacity_of(100, 1, 1, 1.1) == 100  # never more than the tokens
    assert dispatch.capacity_of(1000, 10, 1, 1.1) == 110  # 1.1 * 100 is not 110 in floating point
    assert dispatch.capacity_of(1, 64, 1, 0.1) == 1


def test_plan_by_hand():
    """Five tokens, two experts, one choice, three slots; token 2 is padding, token 4 overflows expert 1."""
    plan = _plan(jnp.array([[1], [1], [2], [0], [1]]), num_experts=2, capacity=2)
    np.testing.assert_array_equal(plan.token_of_slot, [[3, 5], [0, 1]])
    np.testing.assert_array_equal(plan.assignment_of_slot, [[3, 5], [0, 1]])
    np.testing.assert_array_equal(plan.slot_of_assignment, [[2, 3, 4, 0, 4]])
    assert plan.dropped == 1


def test_second_choices_stand_behind_first_choices():
    """Token 0's second choice (expert 1) yields its slot to token 1's first choice."""
    plan = _plan(jnp.array([[0, 1], [1, 0]]), num_experts=2, capacity=1)
    np.testing.assert_array_equal(plan.token_of_slot, [[0], [1]])
    np.testing.assert_array_equal(plan.slot_of_assignment, [[0, 1], [2, 2]])
    assert plan.dropped == 2


def test_large_id_spaces_sort_like_small_ones(monkeypatch):
    ids = jax.random.randint(jax.random.key(0), (300,), 0, 5)
    packed = dispatch._stable_order(ids, 5)
    np.testing.assert_array_equal(packed, np.argsort(ids, kind="stable"))
    np.testing.assert_array_equal(dispatch._stable_order(ids, 2**31), packed)


@pytest.mark.parametrize("kind", ["gather", "dense"])
def test_output_by_hand(kind):
    """Expert i multiplies by 10^i: the sum shows who was asked, and with what weight."""
    x = jnp.array([[1.0], [2.0], [3.0]])
    routing = _routing([[0, 2], [1, 0], [3, 3]], 3, [[0.5, 0.5], [0.25, 0.75], [1.0, 1.0]])
    powers = jnp.array([1.0, 10, 100])[:, None, None]
    y, dropped = jax.jit(lambda x: dispatch.DISPATCHES[kind](x, routing, lambda v: v * powers, None))(x)
    np.testing.assert_allclose(y, [[50.5], [0.25 * 20 + 0.75 * 2], [0.0]], rtol=1e-6)
    assert dropped == 0


@pytest.mark.parametrize(("top_k", "capacity"), [(1, None), (2, 23)])
def test_gather_equals_dense_with_gradients(top_k, capacity):
    x, logits, mask, w1, w2 = _random_case(top_k)
    target = jax.random.normal(jax.random.key(99), x.shape)

    def loss(kind, x, logits, w1, w2):
        y, dropped = dispatch.DISPATCHES[kind](x, route(logits, mask, top_k), _network(w1, w2), capacity)
        return jnp.sum((y - target) ** 2), (y, dropped)

    results = {}
    for kind in dispatch.DISPATCHES:
        grad = jax.grad(loss, argnums=(1, 2, 3, 4), has_aux=True)
        results[kind] = jax.jit(grad, static_argnums=0)(kind, x, logits, w1, w2)
    for kind in results:
        jax.tree.map(_assert_near, results[kind], results["dense"])
        assert results[kind][1][1] == 0


def test_gradients_equal_finite_differences():
    x, logits, mask, w1, w2 = _random_case(5, tokens=6, experts=3, width=2, hidden=3)

    @jax.jit
    def value(x, w1, w2):
        return jnp.sum(jnp.sin(dispatch.gather(x, route(logits, mask, 2), _network(w1, w2), 3)[0]))

    jax.test_util.check_grads(value, (x, w1, w2), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_neither_way_scatters_activations():
    x, logits, mask, w1, w2 = _random_case(0)

    def loss(x, logits, w1, w2):
        return jnp.sum(dispatch.gather(x, route(logits, mask, 2), _network(w1, w2), 9)[0] ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2, 3)))(x, logits, w1, w2))
    # One scatter of small integers is left: the inverse of the sort.
    assert re.findall(r":(\w+)\[[\d,]*\] = scatter", text) == ["i32"]
    assert text.count("scatter[") == 1
    assert not re.findall(r"scatter[-_](add|mul|min|max)", text)


def test_einsum_in_one_group_drops_what_gather_drops():
    x, logits, mask, w1, w2 = _random_case(3)
    routing = route(logits, mask, 2)
    runs = [
        jax.jit(lambda x, kind=kind: dispatch.DISPATCHES[kind](x, routing, _network(w1, w2), 6))(x)
        for kind in ("gather", "einsum")
    ]
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-5, atol=1e-5)
    assert runs[0][1] == runs[1][1] > 0


def test_priority_lets_the_surest_in():
    """Four tokens want expert 0, which has two slots; a padding token's priority counts for nothing."""
    ids, sureness = jnp.array([[0], [0], [2], [0], [0]]), jnp.array([[0.2], [0.9], [1.0], [0.1], [0.7]])
    plan = jax.jit(dispatch.make_plan, static_argnums=(1, 2))(ids, 2, 2, sureness)
    np.testing.assert_array_equal(plan.token_of_slot, [[1, 4], [5, 5]])
    np.testing.assert_array_equal(plan.slot_of_assignment, [[4, 0, 4, 4, 1]])
    assert plan.dropped == 2


@pytest.mark.parametrize(
    ("num_rows", "sizes"),
    [
        (300, [0, 40, 3, 0, 130]),
        (300, [300, 0, 0, 0, 0]),
        (300, [0, 0, 0, 0, 1]),
        (300, [60, 60, 60, 60, 60]),
        (300, [32, 33, 92, 93, 0]),
        (100, [0, 20, 0, 33, 40]),
        (7, [3, 0, 1, 0, 2]),
    ],
)
def test_blocks_multiply_every_row_with_its_own_matrix(num_rows, sizes):
    """Sizes around the blocks (60 and 32 rows; 32 only; 7 only), empty groups, rows behind the last; gradients too."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, slopes = jax.random.normal(keys[0], (num_rows, 4)), jax.random.normal(keys[3], (num_rows, 3))
    matrices, bias = jax.random.normal(keys[1], (5, 4, 3)), jax.random.normal(keys[2], (5, 3))
    group = np.repeat(np.arange(6), [*sizes, num_rows - sum(sizes)])
    one_hot = jnp.asarray(np.eye(6)[group][:, :5], jnp.float32)

    def by_hand(x, matrices, bias):
        return jnp.einsum("se,sd,edh->sh", one_hot, x, matrices) + one_hot @ bias

    expected, way_back = jax.vjp(by_hand, x, matrices, bias)
    for product in (grouped.blocked, grouped.ragged):
        y, back = jax.vjp(jax.jit(lambda *a, p=product: p(*a, jnp.array(sizes))), x, matrices, bias)
        for ours, theirs in zip((y, *back(slopes)), (expected, *way_back(slopes)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_overflow_drops_exactly_the_later_tokens():
    """All ten tokens want expert 1, which has four slots."""
    x = jnp.arange(1.0, 11.0)[:, None]
    routing = _routing([[1]] * 10, 2)

    def run(x):
        y, dropped = dispatch.gather(x, routing, lambda v: v * 2 + 7, 4)
        return y.sum(), (y, dropped)

    gradient, (y, dropped) = jax.jit(jax.grad(run, has_aux=True))(x)
    np.testing.assert_array_equal(y[:, 0], [9, 11, 13, 15, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(gradient[:, 0], [2] * 4 + [0] * 6)
    assert dropped == 6


def test_padding_takes_no_slot():
    """Padding in front of the tokens costs them nothing: two slots are enough for the last two tokens."""
    x = jnp.array([[5.0], [6.0], [1.0], [2.0]])
    routing = _routing([[2], [2], [0], [0]], 2)
    y, dropped = jax.jit(lambda x: dispatch.gather(x, routing, lambda v: v + 1, 2))(x)
    np.testing.assert_array_equal(y[:, 0], [0, 0, 2, 3])
    assert dropped == 0


@pytest.mark.parametrize("kind", ["gather", "dense"])
def test_padding_changes_nothing(kind):
    """Whatever padding rows hold, NaN included, values and gradients are those of other padding."""
    x, logits, mask, w1, w2 = _random_case(7)

    def loss(x, w1, w2):
        return jnp.sum(dispatch.DISPATCHES[kind](x, route(logits, mask, 2), _network(w1, w2), 8)[0] ** 2)

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    noise = jnp.where(mask[:, None], x, jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, run(x, w1, w2), run(noise, w1, w2))
    np.testing.assert_array_equal(run(noise, w1, w2)[1][0][~mask], 0)


@pytest.mark.parametrize("kind", ["gather", "dense"])
def test_all_padding_gives_zeros(kind):
    routing = _routing([[2]] * 3, 2)
    y, dropped = jax.jit(lambda x: dispatch.DISPATCHES[kind](x, routing, lambda v: v + 1, 1))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(y, 0)
    assert dropped == 0


_row = st.one_of(st.just([4, 4]), st.permutations(range(4)).map(lambda order: order[:2]))


@settings(max_examples=100, deadline=None)
@given(st.lists(_row, min_size=9, max_size=9), st.sampled_from([1, 3, 9]))
def test_slots_hold_what_they_should_on_random_ids(rows, capacity):
    """assigned + dropped + padding = tokens * k; every kept assignment sits in one slot of its own expert."""
    ids, tokens, num_experts = np.array(rows, np.int32), 9, 4
    plan = jax.tree.map(np.asarray, _plan(ids, num_experts=4, capacity=capacity))
    kept = np.argwhere(plan.slot_of_assignment < num_experts * capacity)
    assert len(kept) + plan.dropped + (ids == num_experts).sum() == ids.size
    assert (plan.token_of_slot < tokens).sum() == len(kept)
    for choice, token in kept:
        expert, slot = divmod(plan.slot_of_assignment[choice, token], capacity)
        assert expert == ids[token, choice]
        assert plan.assignment_of_slot[expert, slot] == choice * tokens + token
        assert plan.token_of_slot[expert, slot] == token
    for expert in range(num_experts):  # the earliest in line are the ones that are kept
        line = [(c, t) for c in range(2) for t in range(tokens) if ids[t, c] == expert]
        assert [tuple(place) for place in kept if ids[place[1], place[0]] == expert] == line[:capacity]
