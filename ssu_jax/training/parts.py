"""Which parameters learn and how fast, told by their names.

A pattern names a module, with all below it, or is a shell pattern of a whole name: "clip_vision",
"visual_encoder/stage_1", "*/bias". Names are those of the parameter tree, joined with slashes.

What is frozen stays in `TrainState.params` and nowhere else: gradient, moments and average are trees of the
learned part alone, with the frozen leaves absent. So does the bias that balances experts, which steps move by a rule
of its own (`balanced`).
"""

import difflib
import fnmatch
import itertools
import os
import re
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ssu_jax.config import TrainConfig
from ssu_jax.layers.moe import losses
from ssu_jax.layers.moe.experts import BALANCING_BIAS, in_order
from ssu_jax.training import stacks
from ssu_jax.types import UserError

# Parts beside an encoder's blocks that come after them; all others come before them.
_AFTER = ("norm", "final_norm", "post_norm", "projection", "head", "pool")
_LAST = 1 << 30
_BIASES = f"*/{BALANCING_BIAS}"
_NUMBERED = re.compile(r"(stage|block)_\d+")

Layer = tuple[int, int]  # (stage, block), in the order of the computation


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter is meant by one of the patterns."""
    return any(fnmatch.fnmatchcase(name, form) for pattern in patterns for form in (pattern, f"{pattern}/*"))


def split(params: dict, freeze: Sequence[str]) -> tuple[dict, dict]:
    """(learned, frozen): two trees that `merge` joins again. With nothing to freeze the first is `params` itself."""
    frozen = {name: leaf for name, leaf in flat(params).items() if is_named(name, (*freeze, _BIASES))}
    if not frozen:
        return params, {}
    learned = {name: leaf for name, leaf in flat(params).items() if name not in frozen}
    return nested(learned), nested(frozen)


def balanced(frozen: dict, load: Float[Array, "l e"], rate: float, finite: Bool[Array, ""]) -> dict:
    """What is frozen, after a step: of every expert layer the balancing bias moved by its row of `load`.

    Layers stand in the order of their numbers; one leaf may hold several, stacked. Nothing moves unless `finite`.
    """
    leaves = {name: leaf for name, leaf in flat(frozen).items() if is_named(name, [_BIASES])}
    row = 0  # of load
    for name in sorted(leaves, key=in_order):
        bias = leaves[name]
        count = bias.size // load.shape[1]
        moved = losses.updated_bias(bias, load[row : row + count].reshape(bias.shape), rate)
        leaves[name] = jnp.where(finite, moved, bias)
        row += count
    return merge(frozen, nested(leaves))


def merge(*trees: dict) -> dict:
    """One tree of all leaves; of leaves with the same name the last one. The inverse of `split`."""
    filled = [tree for tree in trees if tree]
    if len(filled) == 1:
        return filled[0]
    return nested({name: leaf for tree in filled for name, leaf in flat(tree).items()})


def flat(tree: dict) -> dict[str, Any]:
    """Name -> leaf."""
    return flax.traverse_util.flatten_dict(tree, sep="/")


def check(params: dict, config: TrainConfig) -> None:
    """Raises UserError: a pattern of `train.freeze` that means nothing, all backbones unknown, nothing left to learn.

    params: arrays or their shapes. A backbone, or a part of it, may be named though the model is built without it:
    switches take whole backbones out.
    """
    names = list(flat(params))
    absent = [backbone for backbone in config.backbones if not any(is_named(name, [backbone]) for name in names)]
    for pattern in config.freeze:
        if not is_named(pattern, absent) and not any(is_named(name, [pattern]) for name in names):
            raise _unknown("freeze", pattern, names)
    if all(is_named(name, config.freeze) for name in names):
        raise UserError(f"config: train.freeze {config.freeze!r} leaves nothing that learns: name fewer modules")
    asked = config.backbone_learning_rate != 1 or config.layer_decay != 1 or config.freeze_steps
    if asked and not any(is_named(name, config.backbones) for name in names):
        raise _unknown("backbones", config.backbones[0], names)


def rate_factors(params: dict, config: TrainConfig) -> dict[str, Any]:
    """Name -> learning rate over that of the schedule, for the leaves of backbones: those and no others are named.

    factor = backbone_learning_rate * layer_decay ** (blocks of the same backbone above this one)

    A number; of a stack of blocks an array that multiplies it, with a number for each.
    """
    factors, leaves = {}, flat(params)
    for pattern in config.backbones:
        names = [name for name in leaves if name not in factors and is_named(name, [pattern])]
        single = {name: stacks.entries(name, leaves[name].shape[0] if leaves[name].ndim else 0) for name in names}
        every = [name for entries in single.values() for name in entries]
        depths = dict(zip(every, blocks_above(every), strict=True))
        for name in names:
            found = [config.backbone_learning_rate * config.layer_decay ** depths[entry] for entry in single[name]]
            shape = (-1, *[1] * (leaves[name].ndim - 1))
            factors[name] = np.asarray(found, np.float32).reshape(shape) if stacks.is_stack(name) else found[0]
    return factors


def blocks_above(names: Sequence[str]) -> list[int]:
    """For every parameter of one encoder, how many of its blocks lie above: 0 for the last block and what follows it.

    A block is a pair of numbers, "stage_{s}" and "block_{i}" in its name, 0 where one is lacking. What a stage holds
    beside its blocks counts to its first block (a patch embedding), or to its last (a norm). What stands beside all
    blocks is one deeper than the first (a stem, positions), or counts to the last (a final norm, a projection). An
    encoder without numbered blocks has 0 throughout.
    """
    split_names = [name.split("/") for name in names]
    shared = itertools.takewhile(lambda part: not _NUMBERED.search(part), os.path.commonprefix(split_names))
    prefix = len(list(shared))
    layers = [_layer_of(name[prefix:]) for name in split_names]
    blocks = sorted({layer for layer in layers if layer[1] not in (-1, _LAST)})

    def above(layer: Layer) -> int:
        first = next((block for block in blocks if block[0] == layer[0]), layer)
        lower = max(layer, first)  # a stage's beginning goes with its first block
        return sum(block > lower for block in blocks)

    return [above(layer) for layer in layers]


def _layer_of(name: Sequence[str]) -> Layer:
    """(stage, block); -1 for what comes before the blocks, _LAST for what comes after."""
    joined = "/".join(name)
    stage, block = re.search(r"stage_(\d+)", joined), re.search(r"block_(\d+)", joined)
    if block:
        return int(stage[1]) if stage else 0, int(block[1])
    own = joined[stage.end() :].strip("/") if stage else joined
    side = _LAST if own.partition("/")[0] in _AFTER else -1
    return int(stage[1]) if stage else side, side


def _unknown(option: str, pattern: str, names: Sequence[str]) -> UserError:
    modules = sorted({"/".join(parts[:depth]) for parts in (name.split("/") for name in names)
                      for depth in range(1, len(parts))})  # fmt: skip
    close = difflib.get_close_matches(pattern, modules, n=1, cutoff=0.0)
    hint = f"did you mean {close[0]}?" if close else "the model has none"
    return UserError(f"config: train.{option} names {pattern!r}, which the model does not have: {hint}")


def nested(leaves: dict[str, Any]) -> dict:
    return flax.traverse_util.unflatten_dict(leaves, sep="/")
