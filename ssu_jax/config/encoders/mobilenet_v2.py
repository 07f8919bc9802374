"""Sizes of MobileNetV2, and the form in which its weights are published."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class MobileNetV2Config:
    """Inverted residual blocks (Sandler et al. 2018); a width is 32, 16, 24, ... 320 times the multiplier, rounded."""

    width_multiplier: float = option(1.0, "widths over those of the paper", low=0.05, high=4.0)
    divisor: int = option(8, "widths are rounded to a multiple of it", low=1)
    smallest_width: int = option(8, "no layer is narrower", low=1)
    expand_ratio: float = option(6.0, "inner width of a block over its input", low=0.5, high=16.0)
    output_stride: int = option(32, "stride of the last map: below 32, dilation takes the place of the last strides",
                                choices=(8, 16, 32))  # fmt: skip
    last_width: int = option(1280, "width of the last 1 x 1 convolution; 0 leaves it out", low=0)
    num_classes: int = option(1001, "classes of the head (ImageNet's 1000 after one for background); 0: no head", low=0)
    batch_norm: bool = option(False, "batch norm with its running statistics; off: folded into kernels and biases")
    norm_eps: float = option(0.001, "epsilon of the batch norm", low=0.0, high=1.0)
    padding: str = option("same", "TensorFlow's SAME, or as many rows on each side", choices=("same", "symmetric"))
    layout: str = option("tflite", "names of the published file: those of the TFLite file, or transformers'",
                         choices=("tflite", "transformers"))  # fmt: skip


VARIANTS = {
    "1.0": MobileNetV2Config(),
    "0.75": MobileNetV2Config(width_multiplier=0.75),
    "0.5": MobileNetV2Config(width_multiplier=0.5),
    "0.35": MobileNetV2Config(width_multiplier=0.35),
    "1.4": MobileNetV2Config(width_multiplier=1.4, last_width=1792),
}
