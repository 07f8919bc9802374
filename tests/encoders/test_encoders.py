"""The small encoders: shapes at their strides, and frames that do not see each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config.model import AudioEncoderConfig, VisualEncoderConfig
from ssu_jax.encoders.audio_patches import AudioPatchEncoder
from ssu_jax.encoders.pyramid import PyramidEncoder
from ssu_jax.layers.convolution import merge_patches


def test_pyramid_has_maps_at_strides_4_to_32():
    encoder = PyramidEncoder(VisualEncoderConfig(stem_width=4, widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)))
    frames = jnp.zeros((2, 64, 96, 3))
    features = encoder.apply(encoder.init(jax.random.key(0), frames), frames)
    shapes = [(2, 32, 48, 4), (2, 16, 24, 4), (2, 8, 12, 6), (2, 4, 6, 8), (2, 2, 3, 10)]
    assert {name: x.shape for name, x in features.items()} == dict(
        zip(("stem", "stage_1", "stage_2", "stage_3", "stage_4"), shapes, strict=True)
    )


def test_audio_tokens_run_along_time():
    encoder = AudioPatchEncoder(AudioEncoderConfig(widths=(4, 4, 8)), width=16)
    patches = jnp.zeros((3, 96, 64))
    assert encoder.apply(encoder.init(jax.random.key(0), patches), patches).shape == (3, 6, 16)


@pytest.mark.parametrize("kind", ["visual", "audio"])
def test_frames_stay_independent(kind):
    rng = np.random.default_rng(0)
    if kind == "visual":
        encoder = PyramidEncoder(VisualEncoderConfig(stem_width=4, widths=(4, 4, 4, 4), depths=(1, 1, 1, 1)))
        x = jnp.asarray(rng.normal(size=(3, 32, 32, 3)), jnp.float32)
    else:
        encoder, x = AudioPatchEncoder(AudioEncoderConfig(widths=(4, 4, 8)), 8), rng.normal(size=(3, 96, 64))
        x = jnp.asarray(x, jnp.float32)
    variables = encoder.init(jax.random.key(0), x)
    alone, together = encoder.apply(variables, x[:1]), encoder.apply(variables, x)
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(one[0], many[0], atol=1e-5)


def test_merge_patches_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(merge_patches(x, 2)[0, 0, 1], [2.0, 3.0, 6.0, 7.0])
