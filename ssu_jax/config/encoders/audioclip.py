"""Sizes of AudioCLIP's three towers (Guzhov et al. 2021, arXiv 2106.13043), as published."""

import dataclasses

from ssu_jax.config.encoders.clip import LEGACY_END_ID, CLIPTextConfig
from ssu_jax.config.encoders.clip_resnet import CLIPResNetConfig
from ssu_jax.config.encoders.esresnet import ESResNetConfig


def _text() -> CLIPTextConfig:
    """As openai publishes it, beside a residual network."""
    return CLIPTextConfig(embedding_width=1024, end_id=LEGACY_END_ID, joint_projections=True)


@dataclasses.dataclass
class AudioCLIPConfig:
    """CLIP's image and text towers and one for sound, in one space."""

    image: CLIPResNetConfig = dataclasses.field(default_factory=CLIPResNetConfig)
    text: CLIPTextConfig = dataclasses.field(default_factory=_text)
    audio: ESResNetConfig = dataclasses.field(default_factory=ESResNetConfig)


# sha256 of the two published files, with full and with partial training (AndreyGuzhov/AudioCLIP: assets).
PUBLISHED_DIGESTS = (
    "2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
    "1921885b6c3b5de0619f2ef4a9700ecbade758a398b34eb064230c30baef0c75",
)
VARIANTS = {"audioclip": AudioCLIPConfig()}  # both published files, with full and with partial training, have this size
