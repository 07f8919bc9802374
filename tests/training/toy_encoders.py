"""Encoders that compile at once, in the place of SSUFormer's small ones."""

import contextlib
from collections.abc import Iterator

import flax.linen as nn
import pytest

from ssu_jax.layers.convolution import merge_patches
from ssu_jax.models.ssuformer import backbones


class Pictures(nn.Module):
    """Maps at strides 4 to 32, in the place of the visual encoder: it compiles at once."""

    @nn.compact
    def __call__(self, x):
        maps = {}
        for stage in range(1, 5):
            maps[f"stage_{stage}"] = x = nn.Dense(8, name=f"stage_{stage}")(merge_patches(x, 4 if stage == 1 else 2))
        return maps


class Sounds(nn.Module):
    """Six tokens, likewise."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, name="project")(x.reshape(len(x), 6, -1))


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """They are taken while this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "visual_encoder", lambda *_: Pictures())
        patch.setattr(backbones, "audio_encoder", lambda config, width, dtype: Sounds(width))
        yield
