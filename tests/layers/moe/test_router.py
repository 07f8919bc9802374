"""Which experts a token visits, by hand and by invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers.moe import router

route = jax.jit(router.route, static_argnums=2)

ALL = jnp.ones(3, bool)
# Softmax of a row of logs of numbers that sum to 1 gives the numbers back.
LOGITS = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.3, 0.2]]))


def test_top_one_weighs_with_the_probability_over_all_experts():
    routing = route(LOGITS, ALL, 1)
    assert routing.ids.dtype == jnp.int32
    np.testing.assert_array_equal(routing.ids, [[3], [0], [2]])
    np.testing.assert_allclose(routing.weights, [[0.4], [0.7], [0.3]], rtol=1e-6)
    np.testing.assert_allclose(routing.probabilities, np.exp(LOGITS), rtol=1e-6)


def test_top_two_best_first_weights_sum_to_one():
    routing = route(LOGITS, ALL, 2)
    np.testing.assert_array_equal(routing.ids, [[3, 2], [0, 1], [2, 0]])  # the lower id wins a tie
    np.testing.assert_allclose(routing.weights, [[4 / 7, 3 / 7], [7 / 8, 1 / 8], [0.3 / 0.55, 0.25 / 0.55]], rtol=1e-6)


def test_one_expert_has_weight_exactly_one():
    routing = route(jnp.array([[3.7], [-88.0], [1e4]]), ALL, 1)
    np.testing.assert_array_equal(routing.ids, 0)
    np.testing.assert_array_equal(routing.weights, 1.0)


def test_padding_goes_to_the_sentinel_with_weight_zero_whatever_it_holds():
    logits = LOGITS.at[1].set(jnp.nan)
    mask = jnp.array([True, False, True])

    def loss(logits):
        routing = route(logits, mask, 2)
        return jnp.sum(routing.weights[:, 0]) + jnp.sum(routing.probabilities[:, 0]), routing

    gradient, routing = jax.jit(jax.grad(loss, has_aux=True))(logits)
    np.testing.assert_array_equal(routing.ids, [[3, 2], [4, 4], [2, 0]])
    np.testing.assert_array_equal(routing.weights[1], 0)
    np.testing.assert_array_equal(routing.probabilities[1], 0)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0)
    assert np.abs(gradient[0]).max() > 0


def test_two_step_choice_by_hand():
    """The scene prefers group 1 (experts 2, 3) although the best single logit may be in group 0."""
    groups = jnp.log(jnp.array([[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]))
    logits = jnp.log(jnp.array([[0.9, 0.1, 0.75, 0.25], [0.5, 0.5, 0.9, 0.1], [0.4, 0.6, 0.3, 0.7]]))
    routing = route(logits, ALL, 1, groups)
    np.testing.assert_array_equal(routing.ids, [[2], [0], [3]])
    np.testing.assert_allclose(routing.weights, [[0.8 * 0.75], [0.6 * 0.5], [0.9 * 0.7]], rtol=1e-6)
    np.testing.assert_allclose(routing.probabilities[0], [0.2 * 0.9, 0.2 * 0.1, 0.8 * 0.75, 0.8 * 0.25], rtol=1e-6)

    pair = route(logits, ALL, 2, groups)
    np.testing.assert_array_equal(pair.ids, [[2, 3], [0, 1], [3, 2]])
    np.testing.assert_allclose(pair.weights.sum(-1), [0.8, 0.6, 0.9], rtol=1e-6)  # the group's own probability


def test_one_group_is_the_plain_choice():
    plain, grouped = route(LOGITS, ALL, 2), route(LOGITS, ALL, 2, jnp.array([[5.0], [-2.0], [0.0]]))
    for a, b in zip(plain[:4], grouped[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_reaches_the_chosen_logit_and_the_group():
    groups = jnp.array([[0.3, 0.1]] * 3)
    by_logits, by_groups = jax.jit(jax.grad(lambda a, g: route(a, ALL, 1, g).weights.sum(), (0, 1)))(LOGITS, groups)
    ids = np.asarray(route(LOGITS, ALL, 1, groups).ids[:, 0])
    assert (np.asarray(by_logits)[np.arange(3), ids] > 0).all()
    assert (np.asarray(by_groups)[:, 0] > 0).all()


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_invariants_on_random_logits(top_k):
    logits = jax.random.normal(jax.random.key(top_k), (50, 8)) * 3
    groups = jax.random.normal(jax.random.key(9), (50, 2))
    mask = jnp.arange(50) % 7 != 0
    routing = route(logits, mask, top_k, groups)
    ids, real = np.asarray(routing.ids), np.asarray(mask)
    assert all(len(set(row)) == top_k for row in ids[real])  # no expert twice
    assert (ids[real] // 4 == np.argmax(groups, -1)[real, None]).all()  # all in the token's group
    np.testing.assert_allclose(np.asarray(routing.probabilities).sum(-1), real.astype(np.float32), atol=1e-6)
    assert (ids[~real] == 8).all()


def test_logits_of_half_precision_are_routed_in_float32():
    routing = route(LOGITS.astype(jnp.bfloat16), ALL, 1)
    assert routing.weights.dtype == routing.probabilities.dtype == jnp.float32


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="top_k must be 1..4"):
        route(LOGITS, ALL, 5)
    with pytest.raises(ValueError, match="top_k must be 1..2"):
        route(LOGITS, ALL, 3, jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="4 experts, 3 groups"):
        route(LOGITS, ALL, 1, jnp.zeros((3, 3)))
