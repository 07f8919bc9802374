"""Sizes of PVT-v2 (Wang et al. 2022, arXiv 2106.13797), as published."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class PVTv2Config:
    """A pyramid of four stages of transformer blocks, at strides 4, 8, 16 and 32. Each tuple has four numbers."""

    widths: tuple[int, ...] = option((64, 128, 320, 512), "channels of the stages", low=1, high=1 << 17)
    depths: tuple[int, ...] = option((3, 6, 40, 3), "blocks of the stages", low=1, high=256)
    num_heads: tuple[int, ...] = option((1, 2, 5, 8), "attention heads of the stages", low=1, high=4096)
    mlp_ratios: tuple[int, ...] = option((4, 4, 4, 4), "hidden width of the feed-forward part over its width", low=1,
                                         high=256)  # fmt: skip
    reductions: tuple[int, ...] = option((8, 4, 2, 1), "side of the squares whose positions share a key", low=1,
                                         high=256)  # fmt: skip
    linear_attention: bool = option(False, "keys from a 7 x 7 average instead of `reductions` (the published b2-li)")
    norm_epsilon: float = option(1e-6, "epsilon of the layer norms", low=0.0)
    convolution_norm_epsilon: float = option(1e-6, "epsilon of the norms behind patch embedding and reduction: 1e-6 "
                                             "in transformers, 1e-5 in the authors' code", low=0.0)  # fmt: skip
    joint_key_value: bool = option(False, "keys and values in one projection, as the authors publish them")


_WIDE = {"depths": (2, 2, 2, 2), "mlp_ratios": (8, 8, 4, 4)}

VARIANTS = {
    "b0": PVTv2Config(widths=(32, 64, 160, 256), **_WIDE),
    "b1": PVTv2Config(**_WIDE),
    "b2": PVTv2Config(depths=(3, 4, 6, 3), mlp_ratios=(8, 8, 4, 4)),
    "b2_linear": PVTv2Config(depths=(3, 4, 6, 3), mlp_ratios=(8, 8, 4, 4), linear_attention=True),
    "b3": PVTv2Config(depths=(3, 4, 18, 3), mlp_ratios=(8, 8, 4, 4)),
    "b4": PVTv2Config(depths=(3, 8, 27, 3), mlp_ratios=(8, 8, 4, 4)),
    "b5": PVTv2Config(),
}
# As in the authors' own files (and timm's), which transformers' were made from: other epsilons, one matrix for keys
# and values.
VARIANTS |= {
    f"{name}_authors": dataclasses.replace(sizes, convolution_norm_epsilon=1e-5, joint_key_value=True)
    for name, sizes in VARIANTS.items()
}
