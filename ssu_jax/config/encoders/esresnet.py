"""Sizes of ESResNeXt-fbsp (Guzhov et al. 2021, arXiv 2104.11587), as published with AudioCLIP."""

import dataclasses

from ssu_jax.config.options import option

SAMPLE_RATE = 44100  # Hz, of the sound that the published weights know
BANDS = 3  # parts of the spectrum, one beside the other as the colours of a picture are


@dataclasses.dataclass
class ESResNetConfig:
    """A learned spectrum, and a ResNeXt on it. Defaults: ResNeXt-50 32x4d."""

    fft_size: int = option(2048, "samples that a filter spans; there are half as many filters and one", low=4,
                           high=1 << 16)  # fmt: skip
    hop: int = option(561, "samples from one frame to the next", low=1, high=1 << 16)
    window: int = option(1654, "samples of a frame; around them the filters meet zeros", low=1, high=1 << 16)
    depths: tuple[int, ...] = option((3, 4, 6, 3), "blocks of the four stages", low=1, high=256)
    width: int = option(64, "channels of the stem; the stages have 4, 8, 16 and 32 times as many", low=1, high=4096)
    groups: int = option(32, "groups of the 3 x 3 convolutions", low=1, high=4096)
    group_width: int = option(4, "channels of a group in the first stage; each later one has twice as many", low=1,
                              high=4096)  # fmt: skip
    embedding_width: int = option(1024, "width of the space that images, texts and sounds share", low=1, high=1 << 17)
    norm_eps: float = option(1e-5, "epsilon of the batch norms", low=0.0, high=1.0)
