"""Sizes of VGGish, and which of its two published forms."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class VGGishConfig:
    """A VGG of six 3 x 3 convolutions on a 96 x 64 log-mel patch, and three dense layers (Hershey et al. 2017)."""

    widths: tuple[int, ...] = option(
        (64, 128, 256, 512), "channels of the four stages, each halved by a pooling", low=1
    )
    hidden: int = option(4096, "width of the two hidden dense layers", low=1)
    embedding_width: int = option(128, "width of the embedding", low=1)
    final_relu: bool = option(True, "ReLU after the last layer, as the torch port has it and Google's model has not")
    layout: str = option("torch", "names of the published file: the torch port's, or Google's checkpoint variables",
                         choices=("torch", "tensorflow"))  # fmt: skip


VARIANTS = {
    "torch": VGGishConfig(),
    "google": VGGishConfig(final_relu=False, layout="tensorflow"),
}
