"""Sizes of CLIP's image tower in its form as a residual network (Radford et al. 2021), as published."""

import dataclasses

from ssu_jax.config.options import option

STRIDE = 32  # of the last map


@dataclasses.dataclass
class CLIPResNetConfig:
    """Four stages of bottlenecks at strides 4, 8, 16 and 32, and a pooling by attention. Defaults: RN50."""

    image_size: int = option(224, "side of the images it was trained on, pixels: it fixes the grid of positions",
                             low=STRIDE, high=4096)  # fmt: skip
    depths: tuple[int, ...] = option((3, 4, 6, 3), "blocks of the four stages", low=1, high=256)
    width: int = option(64, "channels of the stem; the stages have 4, 8, 16 and 32 times as many", low=2, high=4096)
    num_heads: int = option(32, "heads of the pooling", low=1, high=4096)
    embedding_width: int = option(1024, "width of the space that images, texts and sounds share", low=1, high=1 << 17)
    norm_eps: float = option(1e-5, "epsilon of the batch norms", low=0.0, high=1.0)
    dense_positions: str = option(
        "grid",
        "positions of the dense tokens: CLIP's table, resized as the grid that it is (grid), or stretched as one line "
        "of rows with the mean token's row before them, as T-VSL's release does (released)",
        choices=("grid", "released"),
    )
