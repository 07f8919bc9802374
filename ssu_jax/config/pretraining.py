"""Pre-training of the two encoders on video without labels (family "pretraining"; models/pretraining)."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class PretrainingConfig:
    """Sizes of what stands on the encoders, and the weights of the three terms. The encoders are model.visual, .audio.

    A weight of 0 takes the term out.
    """

    mask_share: float = option(0.5, "share of the 16 x 16 squares of a picture, and of a log-mel patch, that are "
                                    "hidden and to be predicted", low=0.05, high=0.95)  # fmt: skip
    pairs: float = option(0.05, "contrast of the picture and the sound of the same second with those of other clips; "
                                "small, for at first it teaches the encoders noise", low=0.0)  # fmt: skip
    pictures: float = option(1.0, "mean squared error of the hidden squares of the pictures", low=0.0)
    sounds: float = option(1.0, "mean squared error of the hidden squares of the log-mel patches", low=0.0)
    temperature: float = option(0.2, "of the contrast: similarities, -1 to 1, are divided by it", low=1e-3, high=10.0)
    width: int = option(128, "width of the decoders", low=8)
    embedding_width: int = option(64, "width of the space in which picture and sound are compared", low=4)
