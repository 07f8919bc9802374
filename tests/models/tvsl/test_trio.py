"""AudioCLIP under T-VSL: its towers in a narrow size and with random weights, against the reference's features."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config import sizes
from ssu_jax.config.encoders.audioclip import VARIANTS
from ssu_jax.conversion.tables.audioclip import ENTRY
from ssu_jax.encoders.clip_resnet import CLIPResNet
from ssu_jax.encoders.esresnet import ESResNeXt
from ssu_jax.layers import images
from ssu_jax.models.tvsl import trio

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "encoders"))
import published  # noqa: E402

HOP = 40  # of the fixture; shapes do not tell it


@pytest.fixture(scope="module")
def expected(root):
    with np.load(root / "tests/fixtures/audioclip/expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def narrow(root):
    """(sizes, parameters) of the fixture."""
    config, variables = published.load(ENTRY, *published.read(root / "tests/fixtures/audioclip"))
    return dataclasses.replace(config, audio=dataclasses.replace(config.audio, hop=HOP)), variables["params"]


@pytest.fixture
def answers(narrow, monkeypatch):
    """Runs one method of the trio, at the fixture's size, in a mode."""
    config, params = narrow
    monkeypatch.setitem(VARIANTS, "audioclip", config)

    def run(mode: str, method: str, *arguments):
        made = sizes.tvsl_audioclip()
        made.tvsl.mode, made.model.dtype = mode, "float32"
        model = trio.make_trio(made.model, made.tvsl)
        assert isinstance(model, trio.PublishedTrio)
        call = jax.jit(lambda params, *given: model.apply({"params": params}, *given, method=method))
        return jax.tree.map(np.asarray, call(params, *arguments))

    return run


@pytest.mark.parametrize(("mode", "name"), [("corrected", "wide_dense"), ("released", "wide_released")])
def test_places_have_the_positions_of_the_mode(answers, expected, monkeypatch, mode, name):
    """The fixture's picture is no bytes, so it is put in place where bytes become an encoder's numbers."""
    seen = (expected["quarters"].astype(np.float32) / 4.0).transpose(0, 2, 3, 1)
    asked = []
    monkeypatch.setattr(images, "standardized", lambda pictures, colours: asked.append(colours) or jnp.asarray(seen))
    found = answers(mode, "look", np.zeros(seen.shape, np.uint8))
    assert asked == [images.CLIP]
    np.testing.assert_allclose(found, expected[name], atol=1e-4)


def test_pictures_of_bytes_are_standardized_as_clip_s(answers, narrow):
    config, params = narrow
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    mean, deviation = (np.array(each, np.float32) for each in images.CLIP)
    given = (pictures / np.float32(255.0) - mean) / deviation
    tower = published.features_of(CLIPResNet(config.image), {"params": params["image"]}, given)
    np.testing.assert_allclose(answers("corrected", "look", pictures), tower["dense"], atol=1e-4)


def test_sound_is_heard_in_the_range_of_the_mode(answers, narrow, expected):
    config, params = narrow
    sound = expected["sound"].astype(np.float32) / 32768.0
    corrected = answers("corrected", "listen", sound)
    np.testing.assert_allclose(corrected, expected["audio_dense"].reshape(2, 4, 6), atol=1e-4)
    quiet = published.features_of(ESResNeXt(config.audio), {"params": params["audio"]}, sound)["dense"]
    released = answers("released", "listen", sound)
    np.testing.assert_allclose(released, quiet.reshape(2, 4, 6), atol=1e-5)
    assert np.abs(released - corrected).max() > 5e-3


def test_words_and_scales(answers, expected):
    np.testing.assert_allclose(answers("corrected", "read", expected["ids"]), expected["text_embedding"], atol=1e-4)
    scales = answers("corrected", "scales")
    assert scales == pytest.approx((100.0, 1.0, np.exp(2.0)), rel=1e-6), "beyond the bounds, and inside"
