"""The layer with its parameters: equal to dense, to itself under permutation, and alone among neighbours."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe.experts import BALANCING_BIAS, MixtureOfExperts

WIDTH, HIDDEN, TOKENS = 8, 12, 30


def _config(**changes):
    return MoEConfig(**{"hidden": HIDDEN, "capacity_factor": 8.0, **changes})


def _inputs(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (TOKENS, WIDTH))
    router_input = jax.random.normal(keys[1], (TOKENS, 2 * WIDTH))
    scene = jax.random.normal(keys[2], (TOKENS, 5))
    return x, router_input, jnp.arange(TOKENS) % 6 != 5, scene


def _compiled(layer, train=False):
    """Compiled once: op by op, the small steps would cost seconds."""
    return jax.jit(lambda params, *inputs: layer.apply({"params": params}, *inputs, train=train))


def _init(layer, seed=1):
    return jax.jit(layer.init)(jax.random.key(seed), *_inputs())["params"]


class Dense(nn.Module):
    """The feed-forward block that one expert stands for."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="contract")(nn.gelu(nn.Dense(HIDDEN, name="expand")(x)))


@pytest.mark.parametrize("train", [False, True])
def test_one_expert_equals_a_dense_layer_with_gradients(train):
    """With a capacity factor below 1 too: a single expert never drops."""
    layer = MixtureOfExperts(_config(num_experts=1, capacity_factor=0.2), WIDTH)
    x, router_input, mask, scene = _inputs()
    params = {**_init(layer), "prompts": jnp.zeros((1, WIDTH))}
    dense = {
        name: {"kernel": params[f"{name}_kernel"][0], "bias": params[f"{name}_bias"][0] + 0.1}
        for name in ("expand", "contract")
    }
    params |= {f"{name}_bias": params[f"{name}_bias"] + 0.1 for name in dense}

    def by_layer(params, x):
        y, statistics = layer.apply({"params": params}, x, router_input, mask, scene, train)
        return jnp.sum(jnp.sin(y)), (y, statistics)

    def by_dense(params, x):
        y = jnp.where(mask[:, None], Dense().apply({"params": params}, x), 0)
        return jnp.sum(jnp.sin(y)), y

    (ours, by_x), (y, statistics) = jax.jit(jax.grad(by_layer, (0, 1), has_aux=True))(params, x)
    (theirs, dense_by_x), expected = jax.jit(jax.grad(by_dense, (0, 1), has_aux=True))(dense, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(by_x, dense_by_x, rtol=1e-5, atol=1e-6)
    for name, part in theirs.items():
        np.testing.assert_allclose(ours[f"{name}_kernel"][0], part["kernel"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours[f"{name}_bias"][0], part["bias"], rtol=1e-5, atol=1e-5)
    assert statistics["dropped"] == 0
    assert statistics["z"] == 0
    assert set(params) == {"prompts", "expand_kernel", "expand_bias", "contract_kernel", "contract_bias"}


def test_the_prompt_is_added_to_the_input():
    layer = MixtureOfExperts(_config(num_experts=1), WIDTH)
    x, router_input, mask, scene = _inputs()
    params = _init(layer)
    prompt = jnp.linspace(-1, 1, WIDTH)
    run = _compiled(layer)
    prompted = run({**params, "prompts": prompt[None]}, x, router_input, mask)[0]
    plain = {**params, "prompts": jnp.zeros((1, WIDTH))}
    np.testing.assert_allclose(prompted, run(plain, x + prompt[None], router_input, mask)[0], atol=1e-5)


def test_every_expert_starts_like_a_dense_layer():
    """lecun_normal: variance 1 / fan_in, expert by expert, not 1 / (experts * fan_in)."""
    layer = MixtureOfExperts(MoEConfig(num_experts=3, hidden=256), 128)
    inputs = jnp.zeros((1, 128)), jnp.zeros((1, 128)), jnp.ones(1, bool)
    params = jax.jit(layer.init)(jax.random.key(0), *inputs)["params"]
    for name, fan_in in (("expand_kernel", 128), ("contract_kernel", 256)):
        variance = np.asarray(params[name]).reshape(3, -1).var(axis=1) * fan_in
        np.testing.assert_allclose(variance, 1.0, atol=0.03)
        assert not np.allclose(params[name][0], params[name][1])


@pytest.mark.parametrize("changes", [{"two_step": True}, {"num_experts": 6, "top_k": 3}])
def test_gather_in_training_equals_dense_when_nothing_drops(changes):
    x, router_input, mask, scene = _inputs()
    layers = {kind: MixtureOfExperts(_config(dispatch=kind, **changes), WIDTH) for kind in ("gather", "dense")}
    params = _init(layers["gather"])

    def loss(kind, params, x, router_input, scene):
        y, statistics = layers[kind].apply({"params": params}, x, router_input, mask, scene, True)
        return jnp.sum(jnp.sin(y)) + statistics["balance"] + statistics["z"], statistics

    run = jax.jit(jax.value_and_grad(loss, (1, 2, 3, 4), has_aux=True), static_argnums=0)
    results = {kind: run(kind, params, x, router_input, scene) for kind in layers}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results.values())
    assert results["gather"][0][1]["dropped"] == 0
    by_params = results["gather"][1][0]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(by_params))  # nothing is left without a gradient


@pytest.mark.parametrize("changes", [{"dropless": True}, {"dispatch": "ragged"}])
def test_dropless_in_training_equals_dense_at_any_capacity(changes):
    x, router_input, mask, scene = _inputs()
    changes = {"top_k": 2, "capacity_factor": 0.1, **changes}
    layers = [MixtureOfExperts(_config(**each), WIDTH) for each in (changes, {**changes, "dispatch": "dense"})]
    params = _init(layers[0])

    def run(layer):
        def loss(params, x):
            y, statistics = layer.apply({"params": params}, x, router_input, mask, scene, True)
            return jnp.sum(jnp.sin(y)), statistics

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    results = [run(layer) for layer in layers]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
    assert results[0][0][1]["dropped"] == 0


@pytest.mark.parametrize(
    "changes",
    [{"choice": "experts", "capacity_factor": 1.0}, {"router_noise": 40.0}, {"priority": True, "capacity_factor": 0.5},
     {"forced_routing": "zipf"}],
)  # fmt: skip
def test_what_is_for_training_alone_leaves_inference_as_it_is(changes):
    x, router_input, mask, scene = _inputs()
    plain, changed = (MixtureOfExperts(_config(**{**changes, **each}), WIDTH) for each in (
        {"choice": "tokens", "router_noise": 0.0, "priority": False, "forced_routing": "none"}, {}
    ))  # fmt: skip
    params = _init(plain)
    rngs = {"mask": jax.random.key(5)}
    runs = [
        [layer.apply({"params": params}, x, router_input, mask, scene, train, rngs=rngs) for train in (False, True)]
        for layer in (plain, changed)
    ]
    jax.tree.map(np.testing.assert_array_equal, runs[0][0], runs[1][0])
    assert np.abs(runs[0][1][0] - runs[1][1][0]).max() > 1e-3
    np.testing.assert_array_equal(runs[1][1][0][~mask], 0)


def test_the_balancing_bias_steers_the_choice_and_has_no_gradient():
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(balancing_rate=1e-3), WIDTH)
    params = _init(layer)
    np.testing.assert_array_equal(params[BALANCING_BIAS], 0)
    assert BALANCING_BIAS not in _init(MixtureOfExperts(_config(), WIDTH))
    params[BALANCING_BIAS] = jnp.array([0.0, 0.0, 5.0, 0.0])

    @functools.partial(jax.grad, has_aux=True)
    def total(params):
        y, statistics = layer.apply({"params": params}, x, router_input, mask, scene)
        return (y**2).sum() + statistics["balance"], statistics

    gradient, statistics = jax.jit(total)(params)
    np.testing.assert_array_equal(statistics["load"], [0, 0, 1, 0])  # at inference too
    np.testing.assert_array_equal(gradient[BALANCING_BIAS], 0)
    assert np.abs(gradient["query"]).max() > 0


def test_experts_may_be_renumbered():
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(top_k=2), WIDTH)
    params = _init(layer)
    order = np.array([2, 0, 3, 1])
    shuffled = {k: v if k in ("query", "scale") else v[order] for k, v in params.items()}
    run = _compiled(layer, train=True)
    y, statistics = run(params, x, router_input, mask, scene)
    y_shuffled, statistics_shuffled = run(shuffled, x, router_input, mask, scene)
    np.testing.assert_allclose(y, y_shuffled, atol=1e-6)
    np.testing.assert_array_equal(statistics["load"][order], statistics_shuffled["load"])
    np.testing.assert_allclose(statistics["balance"], statistics_shuffled["balance"], rtol=1e-6)


def test_experts_alike_equal_one():
    """Four copies of one expert: where a token goes only changes its weight."""
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(top_k=4), WIDTH)  # all are asked, the weights sum to 1
    params = {k: v if k in ("query", "scale") else jnp.broadcast_to(v[:1], v.shape) for k, v in _init(layer).items()}
    one = MixtureOfExperts(_config(num_experts=1), WIDTH)
    single = {k: v[:1] for k, v in params.items() if k not in ("query", "scale")}
    expected = _compiled(one)(single, x, router_input, mask)[0]
    np.testing.assert_allclose(_compiled(layer)(params, x, router_input, mask)[0], expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"two_step": True, "top_k": 2}])
def test_a_result_does_not_depend_on_neighbours_at_inference(changes):
    """Bit for bit, although in training the same capacity would drop tokens."""
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(capacity_factor=0.3, **changes), WIDTH)
    params = _init(layer)
    run = functools.partial(_compiled(layer), params)
    first = slice(0, 10)
    y, statistics = run(x, router_input, mask, scene)
    others = [
        jnp.concatenate([a[first], b[10:]]) for a, b in zip((x, router_input, mask, scene), _inputs(7), strict=True)
    ]
    np.testing.assert_array_equal(y[first], run(*others)[0][first])
    crowd = [jnp.concatenate([a[first], jnp.repeat(a[:1], 20, axis=0)]) for a in (x, router_input, mask, scene)]
    np.testing.assert_array_equal(y[first], run(*crowd)[0][first])
    assert statistics["dropped"] == 0
    in_training = _compiled(layer, train=True)(params, x, router_input, mask, scene)[1]
    assert in_training["dropped"] > 0


def test_masked_tokens_change_nothing_in_training():
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(capacity_factor=1.0), WIDTH)
    params = _init(layer)

    def loss(params, x, router_input):
        y, statistics = layer.apply({"params": params}, x, router_input, mask, scene, True)
        return jnp.sum(y**2) + statistics["balance"] + statistics["z"], (y, statistics)

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    noisy = [
        jnp.where(mask[:, None], a, 1e3 * jax.random.normal(jax.random.key(3), a.shape)) for a in (x, router_input)
    ]
    expected, got = run(params, x, router_input), run(params, *noisy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), expected, got)
    np.testing.assert_array_equal(got[0][1][0][~mask], 0)
    np.testing.assert_array_equal(got[1][1][~mask], 0)


def test_jit_equals_plain():
    layer = MixtureOfExperts(_config(top_k=2, capacity_factor=1.0), WIDTH)
    inputs, params = _inputs(), _init(layer)
    plain = layer.apply({"params": params}, *inputs, True)
    jitted = _compiled(layer, train=True)(params, *inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, jitted)


def test_router_stays_float32_in_bfloat16():
    """Same choices and losses as in float32, results within bfloat16's rounding, parameters float32."""
    x, router_input, mask, scene = _inputs()
    exact = MixtureOfExperts(_config(), WIDTH)
    half = MixtureOfExperts(_config(), WIDTH, jnp.bfloat16)
    params = _init(half)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    y, statistics = _compiled(exact, train=True)(params, x, router_input, mask, scene)
    y_half, statistics_half = _compiled(half, train=True)(params, x, router_input, mask, scene)
    assert y_half.dtype == jnp.bfloat16
    np.testing.assert_allclose(y_half.astype(jnp.float32), y, atol=0.05)
    for name in ("balance", "z", "load", "entropy"):
        assert statistics_half[name].dtype == jnp.float32
        np.testing.assert_array_equal(statistics[name], statistics_half[name])


def test_logits_do_not_grow_with_the_features():
    x, router_input, mask, scene = _inputs()
    layer = MixtureOfExperts(_config(), WIDTH)
    params = _init(layer)
    run = _compiled(layer)
    z = [run(params, x, router_input * size, mask)[1]["z"] for size in (1.0, 1e4)]
    np.testing.assert_allclose(z[0], z[1], rtol=1e-4)


def test_two_step_wants_a_scene():
    x, router_input, mask, _ = _inputs()
    with pytest.raises(ValueError, match="two-step choice wants `scene`"):
        MixtureOfExperts(_config(two_step=True), WIDTH).init(jax.random.key(0), x, router_input, mask)


def test_it_trains_and_no_expert_dies():
    """Four clusters, each with a linear map of its own that one shared map cannot stand for."""
    rng, tokens = np.random.default_rng(0), 256
    centres, maps = rng.normal(size=(4, WIDTH)) * 2, rng.normal(size=(4, WIDTH, WIDTH)) / np.sqrt(WIDTH)
    kind = rng.integers(0, 4, tokens)
    x = rng.normal(size=(tokens, WIDTH)).astype(np.float32)
    target = np.einsum("sd,sdc->sc", x, maps[kind]).astype(np.float32)
    router_input = jnp.asarray(centres[kind] + 0.3 * rng.normal(size=(tokens, WIDTH)), jnp.float32)
    mask = jnp.ones(tokens, bool)
    layer = MixtureOfExperts(_config(hidden=32, capacity_factor=1.5), WIDTH)
    optimizer = optax.adam(1e-2)

    def loss(params):
        y, statistics = layer.apply({"params": params}, jnp.asarray(x), router_input, mask, None, True)
        error = jnp.mean((y - target) ** 2)
        return error + 0.05 * statistics["balance"] + 1e-3 * statistics["z"], (error, statistics)

    @jax.jit
    def step(params, state):
        gradient, (error, statistics) = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, error, statistics

    params = jax.jit(layer.init)(jax.random.key(0), jnp.asarray(x), router_input, mask)["params"]
    state = optimizer.init(params)
    for _ in range(200):
        params, state, error, statistics = step(params, state)
    shared = x @ np.linalg.lstsq(x, target, rcond=None)[0]
    assert error < np.mean((shared - target) ** 2) / 4
    assert statistics["load"].min() > 0.1
    assert statistics["dropped"] < 0.05 * tokens
