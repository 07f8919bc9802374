"""Blocks in a stack learn as blocks that stand by themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax.config import TrainConfig
from ssu_jax.training import optimizer, parts, stacks

SHAPES = {"kernel": (2, 3), "bias": (3,), "norm/scale": (3,)}
NAMES = [f"visual_encoder/stage_{s}/block_{i}/{name}" for s, count in ((1, 2), (2, 3)) for i in range(count)
         for name in SHAPES]  # fmt: skip


def written_out() -> dict:
    generator = np.random.default_rng(0)
    leaves = {name: generator.normal(size=SHAPES[name.split("/", 3)[3]]).astype(np.float32) for name in NAMES}
    return leaves | {"visual_encoder/stage_1/embedding/kernel": np.ones((2, 2), np.float32),
                     "visual_encoder/stage_2/norm/scale": np.ones(2, np.float32),
                     "head/kernel": np.ones((2, 2), np.float32)}  # fmt: skip


def places() -> dict:
    counts = {1: 2, 2: 3}
    blocks = {f"visual_encoder/stage_{s}/blocks/{name}": (counts[s], *shape) for s in counts
              for name, shape in SHAPES.items()}  # fmt: skip
    return blocks | {name: leaf.shape for name, leaf in written_out().items() if "block_" not in name}


def test_a_stack_holds_its_blocks_in_their_order():
    leaves, found = written_out(), stacks.stacked(written_out(), places())
    assert {name: leaf.shape for name, leaf in found.items()} == places()
    for i, entry in enumerate(stacks.entries("visual_encoder/stage_2/blocks/kernel", 3)):
        np.testing.assert_array_equal(found["visual_encoder/stage_2/blocks/kernel"][i], leaves[entry])


def test_what_is_not_wanted_as_a_stack_stays_and_an_incomplete_stack_is_not_made():
    leaves = written_out()
    assert stacks.stacked(leaves, {name: leaf.shape for name, leaf in leaves.items()}) == leaves
    del leaves["visual_encoder/stage_2/block_1/kernel"]
    found = stacks.stacked(leaves, places())
    assert "visual_encoder/stage_2/blocks/kernel" not in found
    assert "visual_encoder/stage_2/blocks/bias" in found
    assert "visual_encoder/stage_2/block_0/kernel" in found


def test_a_step_moves_a_stack_as_its_blocks():
    config = dataclasses.replace(
        TrainConfig(), backbone_learning_rate=0.1, layer_decay=0.5, backbones=("visual_encoder",), weight_decay=0.3
    )

    def moved(leaves: dict) -> dict:
        return parts.flat(jax.jit(updated)(parts.nested(jax.tree.map(jnp.asarray, leaves))))

    def updated(params: dict) -> dict:
        gradient = jax.tree.map(jnp.sin, params)
        made = optimizer.make_optimizer(config)
        direction, _ = made.update(gradient, made.init(params), params)
        rates = optimizer.learning_rates(config, params, 50)
        return jax.tree.map(lambda weight, rate, change: weight - rate * change, params, rates, direction)

    wanted = stacks.stacked(moved(written_out()), places())
    found = moved(stacks.stacked(written_out(), places()))
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, err_msg=name)
