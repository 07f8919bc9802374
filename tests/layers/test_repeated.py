"""Blocks run in turn: one loop gives what block after block gives, with the same names of parameters."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config.encoders import causal_lm, clip, pvt_v2
from ssu_jax.encoders.causal_lm import CausalLM
from ssu_jax.encoders.clip import CLIPText, CLIPVision
from ssu_jax.encoders.pvt_v2 import Stage
from ssu_jax.layers.repeated import in_turn
from ssu_jax.training import parts, stacks

PVT = pvt_v2.PVTv2Config(widths=(8, 8, 8, 8), num_heads=(1, 1, 2, 2), mlp_ratios=(2,) * 4, depths=(1, 1, 3, 1))
TOWERS = clip.VARIANTS["vit_b_16"]
VISION = dataclasses.replace(TOWERS.vision, image_size=32, width=16, num_heads=2, hidden=32, depth=4, embedding_width=8)
TEXT = dataclasses.replace(TOWERS.text, vocab_size=99, end_id=98, length=8, width=16, num_heads=2, hidden=32, depth=3)
LM = dataclasses.replace(causal_lm.VARIANTS["gpt2"], vocab_size=50, width=16, num_heads=2, depth=3, hidden=32)
IDS = jnp.asarray([[1, 5, 7, 9]])
TRACED = []


class Doubling(nn.Module):
    @nn.compact
    def __call__(self, x):
        TRACED.append(1)
        return 2 * x + self.param("shift", nn.initializers.normal(), ())


class Chain(nn.Module):
    scan: bool

    @nn.compact
    def __call__(self, x):
        return in_turn([Doubling(name=f"block_{i}") for i in range(3)], x, scan=self.scan)


def test_a_chain_is_its_blocks_in_their_order_and_is_traced_once():
    params = {"block_0": {"shift": 1.0}, "block_1": {"shift": 10.0}, "block_2": {"shift": 100.0}}
    params = jax.tree.map(jnp.float32, params)
    assert jax.tree.structure(Chain(True).init(jax.random.key(0), 0.0)["params"]) == jax.tree.structure(params)
    for scan, times in ((False, 3), (True, 1)):
        TRACED.clear()
        assert float(Chain(scan).apply({"params": params}, jnp.float32(1.0))) == 8 + 4 * 1 + 2 * 10 + 100
        assert len(TRACED) == times


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda **ways: CLIPVision(VISION, **ways), (jnp.linspace(-1, 1, 32 * 32 * 3).reshape(1, 32, 32, 3), (1, 3))),
        (lambda **ways: CLIPText(TEXT, **ways), (IDS, (0,))),
        (lambda **ways: CausalLM(LM, **ways), (IDS,)),
    ],
    ids=["clip_vision", "clip_text", "causal_lm"],
)
def test_an_encoder_as_a_loop_equals_its_blocks_with_gradients(make, inputs):
    model = make(remat=True)
    variables = jax.jit(lambda: model.init(jax.random.key(0), *inputs))()

    plain = answer(model, variables, inputs)
    assert_close(answer(make(remat=True, scan=True), variables, inputs), plain)


def test_a_stage_whose_blocks_are_a_stack_equals_one_with_blocks_of_their_own_with_gradients():
    inputs = (jnp.linspace(-1, 1, 8 * 8 * 8).reshape(1, 8, 8, 8),)
    plain, looped = Stage(PVT, 2), Stage(PVT, 2, remat=True, scan=True)
    variables, stacked = (jax.jit(lambda model=model: model.init(jax.random.key(0), *inputs))() for model in
                          (plain, looped))  # fmt: skip
    kernels = stacked["params"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernels.shape == (3, 8, 16)
    assert not np.allclose(kernels[0], kernels[1])  # every block begins with numbers of its own
    places = {name: leaf.shape for name, leaf in parts.flat(stacked).items()}

    def joined(variables):
        return parts.nested(stacks.stacked(parts.flat(variables), places))

    (loss, found), gradient = answer(plain, variables, inputs)
    assert_close(answer(looped, joined(variables), inputs), ((loss, found), joined(gradient)))


def answer(model, variables, inputs):
    def loss(variables):
        found = model.apply(variables, *inputs)
        return sum(jnp.mean(jnp.sin(leaf)) for leaf in jax.tree.leaves(found)), found

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)


def assert_close(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
