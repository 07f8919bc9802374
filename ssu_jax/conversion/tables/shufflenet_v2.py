"""ShuffleNetV2 (Ma et al. 2018) as the state dict of a detector's backbone: names, shapes and running statistics.

A table of names alone: this project has no such model. Every unit is a convolution and a batch norm; ours are called

    stage_2/block_0/main/expand/kernel      stage_2/block_0/main/expand_norm/scale, bias, mean, var
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table

NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
# Place of the convolution in its Sequential, of the norm behind it, our name.
MAIN = ((0, 1, "expand"), (3, 4, "depthwise"), (5, 6, "project"))
SIDE = ((0, 1, "depthwise"), (2, 3, "project"))


@dataclasses.dataclass(frozen=True)
class ShuffleNetV2Config:
    """Half width, as published with FastestDet. widths: of the first convolution and of the stages 2 to 4."""

    widths: tuple[int, ...] = (24, 48, 96, 192)
    repeats: tuple[int, ...] = (4, 8, 4)


class Unit(NamedTuple):
    """A convolution without bias and the batch norm behind it."""

    convolution: str  # published
    norm: str  # published
    path: str  # ours
    shape: Shape  # of our kernel: [y, x, in / groups, out]


def units(config: ShuffleNetV2Config) -> Iterator[Unit]:
    """Every convolution of the backbone, in the order of the network."""
    yield unit("first_conv", (0, 1), "first", (3, 3, 3, config.widths[0]))
    for number, repeats in enumerate(config.repeats):
        before, width = config.widths[number], config.widths[number + 1]
        for block in range(repeats):
            theirs, ours = f"stage{number + 2}.{block}", f"stage_{number + 2}/block_{block}"
            half = width // 2
            # Only the first block of a stage halves the map; there a second branch works on the same input.
            inside, out = (before, width - before) if block == 0 else (half, half)
            shapes = ((1, 1, inside, half), (3, 3, 1, half), (1, 1, half, out))
            for (convolution, norm, name), shape in zip(MAIN, shapes, strict=True):
                yield unit(f"{theirs}.branch_main", (convolution, norm), f"{ours}/main/{name}", shape)
            if block == 0:
                shapes = ((3, 3, 1, before), (1, 1, before, before))
                for (convolution, norm, name), shape in zip(SIDE, shapes, strict=True):
                    yield unit(f"{theirs}.branch_proj", (convolution, norm), f"{ours}/side/{name}", shape)


def unit(sequential: str, places: tuple[int, int], path: str, shape: Shape) -> Unit:
    return Unit(f"{sequential}.{places[0]}", f"{sequential}.{places[1]}", path, shape)


def rules_of(found: Iterator[Unit]) -> Table:
    rules: list[Rule | Ignored] = []
    for convolution, norm, path, _ in found:
        rules.append(Rule(f"{convolution}.weight", f"{path}/kernel", "conv"))
        rules += [Rule(f"{norm}.{theirs}", f"{path}_norm/{ours}") for theirs, ours in NORM.items()]
        rules.append(Ignored(f"{norm}.num_batches_tracked"))
    return tuple(rules)


def shapes_of(found: Iterator[Unit]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for _, _, path, shape in found:
        shapes[f"{path}/kernel"] = shape
        shapes |= {f"{path}_norm/{name}": shape[-1:] for name in NORM.values()}
    return shapes


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> ShuffleNetV2Config:
    """The published size; no file says another one."""
    return ShuffleNetV2Config()


ENTRY = Entry(
    kind="shufflenet_v2",
    table=lambda config: rules_of(units(config)),
    read_config=read_config,
    write_config=lambda config: {},  # published as a state dict alone
    config_type=ShuffleNetV2Config,
    shapes=lambda config: shapes_of(units(config)),
)
