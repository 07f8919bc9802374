"""Sizes of DeepLabV3 on MobileNetV2."""

import dataclasses

from ssu_jax.config.encoders.mobilenet_v2 import MobileNetV2Config
from ssu_jax.config.options import option


def _backbone(**changes) -> MobileNetV2Config:
    """The published ones: stride 16, no classifier."""
    return MobileNetV2Config(**{"output_stride": 16, "last_width": 0, "num_classes": 0} | changes)


@dataclasses.dataclass
class DeepLabV3Config:
    """Segmentation head of one 1 x 1 and one image-wide branch (Chen et al. 2017; no dilated branches)."""

    backbone: MobileNetV2Config = dataclasses.field(default_factory=_backbone)
    head_width: int = option(256, "channels of the branches and of their projection", low=1)
    num_classes: int = option(21, "classes of a pixel (PASCAL VOC's 20 after one for background)", low=1)
    norm_eps: float = option(1e-5, "epsilon of the head's batch norms, where the backbone has any", low=0.0, high=1.0)


VARIANTS = {
    "1.0": DeepLabV3Config(),
    "0.5": DeepLabV3Config(_backbone(width_multiplier=0.5, divisor=1, smallest_width=1)),  # published as dm05
}
