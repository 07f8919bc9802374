"""Text-guided localization (family "tvsl"; models/tvsl) and the small trio of encoders it stands on (family "trio")."""

import dataclasses

from ssu_jax.config.options import option

MODES = ("corrected", "released")
TRIOS = ("small", "audioclip")


@dataclasses.dataclass
class TVSLConfig:
    """T-VSL (arXiv 2404.01751): which of its behaviours, on which encoders."""

    mode: str = option("corrected", "corrected, or released: as the public code behaves (models/tvsl/tvsl.py lists "
                                    "the differences)", choices=MODES)  # fmt: skip
    trio: str = option("small", "encoders of image, sound and text in one space: our own, or published AudioCLIP",
                       choices=TRIOS)  # fmt: skip
    weights: str = option("", "folder of AudioCLIP's weights, made by `ssu convert`; read when training begins")
    text_guidance: bool = option(True, "words guide what is seen and heard; off is the same model without them")
    num_sources: int = option(2, "sources of a mixture: pictures side by side, sounds summed", low=1, high=4)
    sound_seconds: int = option(1, "seconds of sound around the picture", low=1, high=30)
    held_out: tuple[str, ...] = option((), "classes that no mixture of training has, and no word of its losses",
                                       may_be_empty=True)  # fmt: skip
    threshold: float = option(0.3, "heat from which on a pixel is in the mask of a word (mode corrected)", low=0.0,
                              high=1.0)  # fmt: skip
    width: int = option(128, "width of the small trio's space", low=8, high=4096)
