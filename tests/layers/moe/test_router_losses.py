"""Balance and z-loss by hand, and the counts that must add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers.moe import dispatch, losses, router

route = jax.jit(router.route, static_argnums=2)
statistics_of = jax.jit(losses.statistics)


def _routing(probabilities, mask=None, top_k=1, groups=None):
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))
    mask = jnp.ones(len(probabilities), bool) if mask is None else jnp.asarray(mask)
    return route(logits, mask, top_k, None if groups is None else jnp.log(jnp.asarray(groups, jnp.float32)))


def test_balance_by_hand():
    """f = (2/3, 1/3), P = (0.6, 0.4): 2 * (2/3 * 0.6 + 1/3 * 0.4)."""
    routing = _routing([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    np.testing.assert_allclose(losses.load_of(routing), [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(losses.balance_loss(routing), 2 * (0.4 + 0.4 / 3), rtol=1e-6)


def test_balance_is_one_when_even_and_e_when_one_expert_has_all():
    even = _routing(np.full((4, 4), 0.2) + 0.2 * np.eye(4))
    np.testing.assert_allclose(losses.balance_loss(even), 1.0, rtol=1e-6)
    crowd = route(jnp.array([[40.0, 0, 0, 0]] * 5), jnp.ones(5, bool), 1)
    np.testing.assert_allclose(losses.balance_loss(crowd), 4.0, rtol=1e-6)


def test_balance_of_two_steps_is_the_mean_of_experts_and_groups():
    """Both tokens go to group 0 (p 0.75), one to each of its experts."""
    routing = _routing([[0.8, 0.2, 0.5, 0.5], [0.2, 0.8, 0.5, 0.5]], groups=[[0.75, 0.25]] * 2)
    experts = 4 * (0.5 * 0.375 + 0.5 * 0.375)
    groups = 2 * 0.75
    np.testing.assert_allclose(losses.balance_loss(routing), (experts + groups) / 2, rtol=1e-6)


def test_balance_gradient_pushes_the_crowded_expert_down():
    logits = jnp.array([[1.0, 0.0, 0.0]] * 6)
    gradient = jax.jit(jax.grad(lambda a: losses.balance_loss(route(a, jnp.ones(6, bool), 1))))(logits)
    assert (np.asarray(gradient)[:, 0] > 0).all()
    assert (np.asarray(gradient)[:, 1:] < 0).all()


def test_z_loss_by_hand():
    """logsumexp of (log 1, log 3) is log 4; of one scene logit row (log 2, log 2) too."""
    mask = jnp.array([True, False])
    logits = jnp.log(jnp.array([[1.0, 3.0], [100.0, 1.0]]))
    np.testing.assert_allclose(losses.z_loss(route(logits, mask, 1)), np.log(4) ** 2, rtol=1e-6)
    both = route(logits, mask, 1, jnp.log(jnp.full((2, 2), 2.0)))
    np.testing.assert_allclose(losses.z_loss(both), 2 * np.log(4) ** 2, rtol=1e-6)


def test_entropy_and_max_load_by_hand():
    statistics = statistics_of(_routing([[0.5, 0.5], [0.5, 0.5]]), jnp.int32(0))
    np.testing.assert_allclose(statistics["entropy"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(statistics["max_load"], 2.0)  # both tie to expert 0: twice the mean


@pytest.mark.parametrize("capacity_factor", [0.4, 1.0, 4.0])
def test_assigned_dropped_and_padding_add_up(capacity_factor):
    tokens, experts, top_k = 24, 6, 2
    capacity = dispatch.capacity_of(tokens, experts, top_k, capacity_factor)

    @jax.jit
    def run(logits, mask):
        routing = route(logits, mask, top_k)
        return losses.statistics(routing, dispatch.gather(jnp.ones((tokens, 2)), routing, lambda x: x, capacity)[1])

    rng = np.random.default_rng(0)
    for share_of_padding in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
        mask = rng.random(tokens) >= share_of_padding
        result = run(jnp.asarray(rng.normal(size=(tokens, experts)), jnp.float32), jnp.asarray(mask))
        counts = [result[name] for name in ("assigned", "dropped", "padding")]
        assert all(count.dtype == jnp.int32 and count >= 0 for count in counts)
        assert sum(int(count) for count in counts) == tokens * top_k
        assert result["padding"] == top_k * (~mask).sum()
        # Counted again from the load: an expert drops what its slots cannot hold.
        asked = np.round(np.asarray(result["load"]) * mask.sum() * top_k)
        assert result["dropped"] == np.maximum(asked - capacity, 0).sum()


def test_figures_of_parts_add_up_to_those_of_the_whole():
    """30 words in parts of 24 and 6: a mean of the parts' shares would be another."""
    logits = 2 * jax.random.normal(jax.random.key(1), (30, 4)) + jnp.array([[1.0, 0, 0, 0]])

    def of(part, dropped):
        return statistics_of(route(logits[part], jnp.ones(len(logits[part]), bool), 2), jnp.int32(dropped))

    whole, parts = of(slice(30), 5), [of(slice(24), 5), of(slice(24, 30), 0)]
    mean = jax.tree.map(lambda *values: sum(values) / 2, *map(losses.sums, parts))
    for name, value in losses.of_sums(mean).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, err_msg=name)
    assert abs(float(whole["entropy"]) - np.mean([part["entropy"] for part in parts])) > 1e-3
    nothing = losses.of_sums(jax.tree.map(jnp.zeros_like, mean))
    assert all(np.all(np.asarray(value) == 0) for value in nothing.values())


def test_padding_changes_no_loss():
    logits = jax.random.normal(jax.random.key(0), (12, 4))
    mask = jnp.arange(12) < 9

    def total(logits):
        result = losses.statistics(route(logits, mask, 2), jnp.int32(0))
        return result["balance"] + result["z"], result

    (_, padded), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(logits.at[9:].set(jnp.inf))
    alone = statistics_of(route(logits[:9], mask[:9], 2), jnp.int32(0))
    for name in ("balance", "z", "load", "entropy"):
        np.testing.assert_allclose(padded[name], alone[name], rtol=1e-6)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[9:], 0)


def test_without_real_tokens_all_is_zero():
    result = statistics_of(route(jnp.ones((3, 4)), jnp.zeros(3, bool), 1), jnp.int32(0))
    for name in ("balance", "z", "load", "entropy", "assigned"):
        np.testing.assert_array_equal(result[name], 0)
