"""YAMNet: the names of its TFLite file, batch norm folded, as an .npz."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.yamnet import YAMNetConfig
from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Rule, Shape, Table
from ssu_jax.encoders.yamnet import BLOCKS, STEM_WIDTH, YAMNet


def table(config: YAMNetConfig) -> Table:
    # Published layers are counted from 1: the stem, then two for each block.
    names = {"layer1/conv": "stem", "fc": "classifier"}
    for block in range(len(BLOCKS)):
        names[f"layer{2 * block + 2}/depthwise"] = f"block_{block}_depthwise"
        names[f"layer{2 * block + 3}/conv"] = f"block_{block}_pointwise"
    return tuple(
        Rule(f"{theirs}/{kind}", f"{ours}/{kind}") for theirs, ours in names.items() for kind in ("kernel", "bias")
    )


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> YAMNetConfig:
    stem, head = shapes.get("layer1/conv/bias", (STEM_WIDTH,)), shapes.get("fc/bias", (YAMNetConfig.num_classes,))
    return YAMNetConfig(width_multiplier=stem[0] / STEM_WIDTH, num_classes=int(head[0]))


def example(config: YAMNetConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return (rng.uniform(-6.9, 3.0, (2, 96, 64)).astype(np.float32),)


ENTRY = Entry(
    kind="yamnet",
    table=table,
    read_config=read_config,
    write_config=lambda config: {},  # the file stands alone
    build=YAMNet,
    example=example,
    config_type=YAMNetConfig,
)
