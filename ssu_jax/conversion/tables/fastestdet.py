"""FastestDet: the state dict of the detector on a ShuffleNetV2 backbone: names, shapes and running statistics.

A table of names alone: this project has no such model. Behind the backbone stand a pyramid of 5 x 5 depthwise
convolutions ("pyramid") and three heads: whether there is an object, its box, its class.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Shape
from ssu_jax.conversion.tables import shufflenet_v2
from ssu_jax.conversion.tables.shufflenet_v2 import ShuffleNetV2Config, Unit, unit

_CLASS_NORM = "detect_head.cls_layers.conv5x5.4.weight"
BOX_NUMBERS = 4


@dataclasses.dataclass(frozen=True)
class FastestDetConfig:
    """Sizes of the detector. num_classes: 80 as published for COCO."""

    backbone: ShuffleNetV2Config = dataclasses.field(default_factory=ShuffleNetV2Config)
    num_classes: int = 80


def units(config: FastestDetConfig) -> Iterator[Unit]:
    """Every convolution of the detector."""
    for each in shufflenet_v2.units(config.backbone):
        theirs = {"convolution": f"backbone.{each.convolution}", "norm": f"backbone.{each.norm}"}
        yield each._replace(**theirs, path=f"backbone/{each.path}")
    stages = config.backbone.widths[1:]
    width = stages[1]
    depthwise, pointwise = (5, 5, 1, width), (1, 1, width, width)
    yield unit("SPP.Conv1x1.conv1x1", (0, 1), "pyramid/merge", (1, 1, sum(stages), width))
    for branch in (1, 2, 3):
        for step in range(branch):
            places = (3 * step, 3 * step + 1)
            yield unit(f"SPP.S{branch}", places, f"pyramid/branch_{branch}/conv_{step}", depthwise)
    yield unit("SPP.output", (0, 1), "pyramid/out", (1, 1, 3 * width, width))
    yield unit("detect_head.conv1x1.conv1x1", (0, 1), "head/merge", pointwise)
    for theirs, ours, numbers in (
        ("obj", "object", 1),
        ("reg", "box", BOX_NUMBERS),
        ("cls", "class", config.num_classes),
    ):
        layers = f"detect_head.{theirs}_layers.conv5x5"
        yield unit(layers, (0, 1), f"head/{ours}/depthwise", depthwise)
        yield unit(layers, (3, 4), f"head/{ours}/project", (1, 1, width, numbers))


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> FastestDetConfig:
    """The published size; the number of classes is read off the last layer where it is there."""
    shape = shapes.get(_CLASS_NORM, ())
    return FastestDetConfig(num_classes=int(shape[0])) if len(shape) == 1 else FastestDetConfig()


ENTRY = Entry(
    kind="fastestdet",
    table=lambda config: shufflenet_v2.rules_of(units(config)),
    read_config=read_config,
    write_config=lambda config: {},  # published as a state dict alone
    config_type=FastestDetConfig,
    shapes=lambda config: shufflenet_v2.shapes_of(units(config)),
)
