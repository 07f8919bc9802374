"""Groups a token can reach, bias, noise, the experts' own choice, forced loads, and the bias outside the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers.moe import losses, router

TOKENS, EXPERTS = 40, 8


def _logits(seed=0, experts=EXPERTS):
    return jax.random.normal(jax.random.key(seed), (TOKENS, experts))


MASK = jnp.arange(TOKENS) % 5 != 4


def test_two_groups_a_token_by_hand():
    """Four groups of two: the chosen are the best of the two best groups, by the product of both probabilities."""
    logits, groups = _logits(1), jax.random.normal(jax.random.key(2), (TOKENS, 4))
    routing = jax.jit(router.route, static_argnums=(2, 4))(logits, MASK, 3, groups, 2)
    group_p = np.asarray(jax.nn.softmax(groups))
    inside = np.asarray(jax.nn.softmax(logits.reshape(TOKENS, 4, 2)))
    joint = (inside * group_p[..., None]).reshape(TOKENS, EXPERTS)
    for token in np.flatnonzero(MASK):
        best = np.argsort(-group_p[token])[:2]
        allowed = np.isin(np.arange(EXPERTS) // 2, best)
        ids = np.argsort(-np.where(allowed, joint[token], -1))[:3]
        np.testing.assert_array_equal(routing.ids[token], ids)
        share = joint[token, ids] / joint[token, ids].sum() * group_p[token, best].sum()
        np.testing.assert_allclose(routing.weights[token], share, rtol=1e-5)
    np.testing.assert_array_equal(routing.ids[~MASK], EXPERTS)


def test_all_groups_are_no_limit():
    """A token that reaches every group chooses among all experts, and its weights sum to 1."""
    groups = jax.random.normal(jax.random.key(2), (TOKENS, 4))
    routing = jax.jit(router.route, static_argnums=(2, 4))(_logits(), MASK, 2, groups, 4)
    best = np.argsort(-np.asarray(routing.probabilities), axis=1)[:, :2]
    np.testing.assert_array_equal(routing.ids[MASK], best[MASK])
    np.testing.assert_allclose(routing.weights.sum(axis=1), MASK.astype(np.float32), rtol=1e-5)


def test_a_bias_moves_the_choice_and_not_the_weights():
    logits = _logits()
    plain = jax.jit(router.route, static_argnums=2)(logits, MASK, 1)

    def biased(logits, bias):
        routing = router.route(logits, MASK, 1, bias=bias)
        return routing.weights.sum(), routing

    bias = jnp.zeros(EXPERTS).at[3].set(2.0)
    slopes, routing = jax.jit(jax.grad(biased, 1, has_aux=True))(logits, bias)
    np.testing.assert_array_equal(routing.ids[MASK], 3)
    np.testing.assert_array_equal(routing.probabilities, plain.probabilities)
    np.testing.assert_allclose(routing.weights[MASK, 0], plain.probabilities[MASK, 3], rtol=1e-6)
    np.testing.assert_array_equal(slopes, 0)
    unmoved = biased(logits, jnp.zeros(EXPERTS))[1]
    np.testing.assert_array_equal(unmoved.ids, plain.ids)


def test_noise_moves_the_choice_and_not_the_probabilities():
    noise = 5 * jax.random.normal(jax.random.key(9), (TOKENS, EXPERTS))
    routing = jax.jit(router.route, static_argnums=2)(_logits(), MASK, 2, noise=noise)
    plain = jax.jit(router.route, static_argnums=2)(_logits(), MASK, 2)
    assert (routing.ids != plain.ids)[MASK].mean() > 0.3
    np.testing.assert_array_equal(routing.probabilities, plain.probabilities)
    np.testing.assert_array_equal(routing.ids[MASK], np.argsort(-(_logits() + noise), axis=1)[:, :2][MASK])


def test_the_bias_evens_the_load_of_a_skewed_router():
    """Loss-free balancing: after some steps of fixed size no expert has much more than its share."""
    logits = jax.random.normal(jax.random.key(3), (400, 4)) + jnp.array([[2.0, 0.0, 0.0, -1.0]])
    mask = jnp.ones(400, bool)

    @jax.jit
    def step(bias):
        load = losses.load_of(router.route(logits, mask, 1, bias=bias))
        return losses.updated_bias(bias, load, 0.01), load

    bias, first = step(jnp.zeros(4))
    np.testing.assert_allclose(bias, [-0.01, 0.01, 0.01, 0.01])
    for _ in range(100):
        bias, load = step(bias)
    assert first.max() > 0.6
    assert load.max() < 0.3


def test_experts_choose_the_tokens_that_suit_them_best():
    """Every expert's tokens are its `capacity` most probable ones, padding never among them."""
    routing = jax.jit(router.expert_choice, static_argnums=(2, 3))(_logits(), MASK, 5, None)
    probabilities = np.where(MASK[:, None], jax.nn.softmax(_logits()), -1)
    for expert in range(EXPERTS):
        tokens = np.flatnonzero((np.asarray(routing.ids) == expert).any(axis=1))
        assert set(tokens) == set(np.argsort(-probabilities[:, expert])[:5])
    stats = losses.statistics(routing, jnp.zeros((), jnp.int32))
    assert stats["assigned"] == 5 * EXPERTS
    np.testing.assert_allclose(stats["max_load"], 1.0, rtol=1e-6)
    few = jax.jit(router.expert_choice, static_argnums=(2, 3))(_logits(), MASK, 5, 1)
    np.testing.assert_array_equal(few.ids[:, 0], routing.ids[:, 0])


@pytest.mark.parametrize("top_k", [1, 2])
def test_forced_uniform_loads_all_experts_alike(top_k):
    mask = jnp.ones(TOKENS, bool)
    routing = router.forced(router.route(_logits(), mask, top_k), "uniform", jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(routing.ids.reshape(-1)), TOKENS * top_k // EXPERTS)
    chosen = np.take_along_axis(np.asarray(routing.probabilities), np.asarray(routing.ids), axis=1)
    expected = chosen if top_k == 1 else chosen / chosen.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(routing.weights, expected, rtol=1e-5)


def test_forced_zipf_loads_expert_i_by_one_over_its_number():
    tokens, experts = 20000, 4
    routing = router.route(jnp.zeros((tokens, experts)), jnp.arange(tokens) > 0, 1)
    ids = np.asarray(router.forced(routing, "zipf", jax.random.key(0)).ids[:, 0])
    assert ids[0] == experts  # padding stays padding
    weights = 1 / np.arange(1, experts + 1)
    np.testing.assert_allclose(np.bincount(ids[1:]) / (tokens - 1), weights / weights.sum(), atol=0.015)
    with pytest.raises(ValueError, match="uniform or zipf"):
        router.forced(routing, "even", jax.random.key(0))
