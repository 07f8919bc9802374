"""YAMNet: the published weights' own answers, front end included, and a narrow network against torch."""

import runpy

import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config.encoders.yamnet import VARIANTS, YAMNetConfig
from ssu_jax.config.published_classes import audioset
from ssu_jax.conversion.tables.yamnet import ENTRY
from ssu_jax.data import audio
from ssu_jax.encoders.yamnet import YAMNet
from ssu_jax.types import UserError


@pytest.fixture
def fixture(root):
    return root / "tests/fixtures/yamnet"


@pytest.fixture(scope="module")
def real(shared):
    """(our log-mel of the golden waveforms, our features of it, golden arrays)"""
    config, variables = published.load(ENTRY, *published.read(shared / "data/weights/npz/yamnet_521.npz"))
    assert config == VARIANTS["521"]
    with np.load(shared / "data/weights/golden/yamnet_golden.npz", allow_pickle=False) as file:
        golden = dict(file)
    log_mel = np.stack([audio.log_mel(sound, 16000, log_offset=0.001) for sound in golden["waveform_16k"]])
    return log_mel, published.features_of(YAMNet(config), variables, log_mel), golden


def test_published_weights_give_their_scores_from_the_waveform(real):
    log_mel, features, golden = real
    np.testing.assert_allclose(log_mel, golden["log_mel"], atol=1e-4)
    np.testing.assert_allclose(features["scores"], golden["scores_float"], atol=1e-4)
    np.testing.assert_allclose(features["embedding"], golden["embedding_float"], atol=1e-4)


def test_published_weights_hear_what_is_there(real):
    _, features, golden = real
    best = features["scores"].argmax(1)
    heard = {str(name): audioset()[index] for name, index in zip(golden["names"], best, strict=True)}
    assert heard["clips/vggsound/vggsound_foleycrafter2_train.mp4@3s"] in ("Train", "Rail transport")
    assert heard["clips/vggsound/vggsound_6zlMP_kQ_-w_30.mp4@5s"] in ("Harp", "Music")
    assert heard["clips/music-1fps/accordion.gt.wav@1s"] in ("Accordion", "Music")
    assert heard["audio/robin.ogg@0s"] in ("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Animal")


def test_round_trip_of_the_published_weights(shared):
    published.assert_round_trip(ENTRY, *published.read(shared / "data/weights/npz/yamnet_521.npz"))


def test_class_names_are_those_of_the_published_map(shared):
    lines = (shared / "data/weights/yamnet_class_map.csv").read_text().splitlines()[1:]
    assert tuple(line.split(",", 2)[2].strip('"') for line in lines) == audioset()


def test_class_names():
    assert len(audioset()) == VARIANTS["521"].num_classes == len(set(audioset()))
    assert (audioset()[0], audioset()[132], audioset()[520]) == ("Speech", "Music", "Field recording")


def test_equals_torch_on_the_fixture(fixture):
    with np.load(fixture / "expected.npz") as file:
        expected = dict(file)
    config, variables = published.load(ENTRY, *published.read(fixture / "weights.npz"))
    assert config == YAMNetConfig(width_multiplier=2 / 32, num_classes=11)
    features = published.features_of(YAMNet(config), variables, expected.pop("log_mel"))
    assert features.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_round_trip_and_faults(fixture):
    _, tensors = published.read(fixture / "weights.npz")
    published.assert_round_trip(ENTRY, {}, tensors)
    tensors["layer28/conv/kernel"] = tensors.pop("layer27/conv/kernel")
    with pytest.raises(UserError, match=r"layer28/conv/kernel.*no rule.*block_12_pointwise/kernel.*nothing fills it"):
        published.load(ENTRY, {}, tensors)


@pytest.mark.full
def test_equals_torch_at_random(root):
    pytest.importorskip("torch")
    made = runpy.run_path(str(root / "tests/fixtures/make_yamnet.py"))
    rng = np.random.default_rng(5)
    weights, log_mel = made["random_weights"](rng, 8, 30), rng.uniform(-6.9, 3.0, (3, 96, 64)).astype(np.float32)
    config, variables = published.load(ENTRY, {}, weights)
    features = published.features_of(YAMNet(config), variables, log_mel)
    for name, value in made["reference"](weights, log_mel).items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_order_of_patches_and_bfloat16(fixture):
    config, variables = published.load(ENTRY, *published.read(fixture / "weights.npz"))
    patches = np.random.default_rng(0).uniform(-6.9, 3.0, (3, 96, 64)).astype(np.float32)
    scores, turned = (
        published.features_of(YAMNet(config), variables, each)["scores"] for each in (patches, patches[::-1].copy())
    )
    np.testing.assert_allclose(scores[::-1], turned, atol=1e-6)
    low = published.features_of(YAMNet(config, dtype=jnp.bfloat16), variables, patches)
    assert low["map"].dtype == jnp.bfloat16
    assert low["scores"].dtype == np.float32
    np.testing.assert_allclose(low["scores"], scores, atol=0.05)
