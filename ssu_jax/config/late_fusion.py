"""Gates of late fusion; those of single sounds stand in its class map (models/late_fusion/class_map.json)."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class LateFusionConfig:
    """YAMNet and DeepLabV3 joined by a class map (our design). Set by hand, on clips without speech."""

    image_size: int = option(513, "rows and columns that the segmenter sees, pixels", low=65, high=1025)
    level_db: float = option(-45.0, "below it a second is silent: mean mel magnitude in dB, where 0 is a normal voice "
                                    "close by", low=-200.0, high=40.0)  # fmt: skip
    bridged_db: float = option(15.0, "a second between two in which a sound is heard counts too, unless it is quieter "
                                     "than both by more", low=0.0, high=200.0)  # fmt: skip
    heard_bias: float = option(1.0, "taken off the logits of the objects that are not heard: a sound tells which "
                                    "object a pixel belongs to", low=0.0, high=10.0)  # fmt: skip
    seen_area: float = option(0.004, "share of the frame from which on a class is seen", low=0.0, high=1.0)
    kept_area: float = option(0.002, "share of the frame that is enough beside a second in which it is seen",
                              low=0.0, high=1.0)  # fmt: skip
    colour_share: float = option(0.5, "share of a source's pixels that one colour needs to be named", low=0.0, high=1.0)
    named_score: float = option(0.3, "score from which on a sound without a place in the class map is named in the "
                                     "notes", low=0.0, high=1.0)  # fmt: skip
    max_sources: int = option(3, "most sources that a sentence names", low=1, high=8)
    max_sounds: int = option(4, "most sounds of a second that the notes hear of", low=1, high=16)
