"""The named sizes of published encoders that a configuration may choose from."""

from ssu_jax.config.encoders import clip, pvt_v2, vggish
from ssu_jax.config.model import ModelConfig


def variant_problems(model: ModelConfig) -> list[str]:
    """A line for each published encoder that is asked for in a size that does not exist, with those that do.

    The sizes are looked up when this is called. Those of the language model hang on its kind: see `Config.validate`.
    """
    asked = {
        "visual": (model.visual.kind == "pvt_v2", model.visual.variant, pvt_v2.VARIANTS),
        "audio": (model.audio.kind == "vggish", model.audio.variant, vggish.VARIANTS),
        "clip": (model.region_encoder != "cells", model.clip.variant, clip.VARIANTS),
    }
    return [
        f"model.{section}.variant must be one of {', '.join(known)}, got {variant!r}"
        for section, (is_used, variant, known) in asked.items()
        if is_used and variant not in known
    ]
