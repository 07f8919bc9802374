"""Sizes of CLIP's image and text towers (Radford et al. 2021), as published."""

import dataclasses

from ssu_jax.config.options import option

ACTIVATIONS = ("quick_gelu", "gelu")
TOWERS = ("both", "vision", "text")
LEGACY_END_ID = 2  # what published configs said before their end id was right


@dataclasses.dataclass
class CLIPVisionConfig:
    """A vision transformer on square patches with a class token."""

    image_size: int = option(224, "side of the images it was trained on, pixels: it fixes the grid of positions", low=1,
                              high=1024)  # fmt: skip
    patch_size: int = option(16, "side of a patch, pixels", low=1, high=1024)
    width: int = option(768, "width of the tokens", low=1, high=1 << 17)
    depth: int = option(12, "blocks", low=1, high=512)
    num_heads: int = option(12, "attention heads", low=1, high=4096)
    hidden: int = option(3072, "hidden width of the feed-forward blocks", low=1, high=1 << 20)
    embedding_width: int = option(512, "width of the space that images and texts share", low=1, high=1 << 17)
    activation: str = option("quick_gelu", "of the feed-forward blocks", choices=ACTIVATIONS)
    norm_epsilon: float = option(1e-5, "of the layer norms", low=0.0)
    joint_projections: bool = option(False, "queries, keys and values in one projection, as openai publishes them")


@dataclasses.dataclass
class CLIPTextConfig:
    """A causal transformer whose state at the end of the text stands for the text."""

    vocab_size: int = option(49408, "rows of the token table", low=2, high=1 << 24)
    length: int = option(77, "positions", low=2, high=1 << 16)
    width: int = option(512, "width of the tokens", low=1, high=1 << 17)
    depth: int = option(12, "blocks", low=1, high=512)
    num_heads: int = option(8, "attention heads", low=1, high=4096)
    hidden: int = option(2048, "hidden width of the feed-forward blocks", low=1, high=1 << 20)
    embedding_width: int = option(512, "width of the space that images and texts share", low=1, high=1 << 17)
    activation: str = option("quick_gelu", "of the feed-forward blocks", choices=ACTIVATIONS)
    norm_epsilon: float = option(1e-5, "of the layer norms", low=0.0)
    joint_projections: bool = option(False, "queries, keys and values in one projection, as openai publishes them")
    end_id: int = option(49407, "id of the end of the text; 2 stands for the largest id of the row, as in older "
                                "published configs and in openai's code", low=0)  # fmt: skip


@dataclasses.dataclass
class CLIPConfig:
    """Both towers, or the one that a published folder holds."""

    towers: str = option("both", "which towers there are", choices=TOWERS)
    vision: CLIPVisionConfig = dataclasses.field(default_factory=CLIPVisionConfig)
    text: CLIPTextConfig = dataclasses.field(default_factory=CLIPTextConfig)


_LARGE = {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 4096, "embedding_width": 768}
_LARGE_TEXT = {"width": 768, "num_heads": 12, "hidden": 3072, "embedding_width": 768}

VARIANTS = {
    "vit_b_32": CLIPConfig(vision=CLIPVisionConfig(patch_size=32)),
    "vit_b_16": CLIPConfig(),
    "vit_l_14": CLIPConfig(vision=CLIPVisionConfig(patch_size=14, **_LARGE), text=CLIPTextConfig(**_LARGE_TEXT)),
    "vit_l_14_336": CLIPConfig(
        vision=CLIPVisionConfig(image_size=336, patch_size=14, **_LARGE), text=CLIPTextConfig(**_LARGE_TEXT)
    ),
}
