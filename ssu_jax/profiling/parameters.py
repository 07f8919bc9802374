"""How many parameters a configuration has, where they sit, which learn and which a token visits.

Counted from the shapes alone: nothing is computed or allocated, whatever the size.
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssu_jax.config import Config
from ssu_jax.inference.loading import parameter_shapes
from ssu_jax.training import parts

# The paper's figure leaves room for no language model, and CLIP's text tower serves a loss only (RCC).
PUBLISHED_LANGUAGE_MODEL = "text_decoder/lm/model"  # a small one of our own has no such part
APART = {"text_decoder/lm": PUBLISHED_LANGUAGE_MODEL, "clip_text": "clip_text"}  # module: what it is told by
_EXPERT_WEIGHTS = ("expand_kernel", "expand_bias", "contract_kernel", "contract_bias")


class Parameters(NamedTuple):
    """total: as the paper counts the model, what is `apart` left out; by_module adds up to it.

    trainable: those of the total that `train.freeze` does not name.  active: those of the total that one token of
    the text decoder visits: all but the experts it is not sent to.  apart: module -> its parameters.
    """

    total: int
    trainable: int
    active: int
    by_module: dict[str, int]
    apart: dict[str, int]


def count(config: Config) -> Parameters:
    """The parameters of the model that a configuration describes.

    Raises UserError for a pattern of `train.freeze` that names nothing in it.
    """
    shapes = parameter_shapes(config)
    parts.check(shapes, config.train)
    return count_of(parts.flat(shapes), config)


def count_of(leaves: Mapping[str, Any], config: Config) -> Parameters:
    """As `count`, of leaves by name: anything with a `size`."""
    beside = [module for module, mark in APART.items() if any(parts.is_named(name, [mark]) for name in leaves)]
    apart, by_module = dict.fromkeys(beside, 0), collections.Counter()
    trainable, unvisited = 0, 0
    for name, leaf in leaves.items():
        module = next((module for module in beside if parts.is_named(name, [module])), None)
        if module is not None:
            apart[module] += leaf.size
            continue
        by_module[name.partition("/")[0]] += leaf.size
        trainable += 0 if parts.is_named(name, config.train.freeze) else leaf.size
        if name.rpartition("/")[2] in _EXPERT_WEIGHTS:  # stacked: one row an expert
            unvisited += leaf.size // config.model.moe.num_experts * _num_unvisited(config)
    total = by_module.total()
    return Parameters(total, trainable, total - unvisited, dict(by_module.most_common()), apart)


def _num_unvisited(config: Config) -> int:
    return config.model.moe.num_experts - config.model.moe.top_k
