"""ESResNeXt: its spectrum against a Fourier transform and by hand, its frames, its gates, its range."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from ssu_jax.config.encoders.esresnet import SAMPLE_RATE, ESResNetConfig
from ssu_jax.encoders import esresnet, fbsp

SMALL = ESResNetConfig(fft_size=64, hop=20, window=48, depths=(1, 1, 1, 1), width=2, groups=2, group_width=1,
                       embedding_width=5)  # fmt: skip


def new_filters(config):
    count = config.fft_size // 2 + 1
    return {"m": np.zeros(count), "fb": np.ones(count), "fc": np.arange(count),
            "window": fbsp.blackman_harris(config.window)}  # fmt: skip


def decibels(config, sound, **changed):
    params = {name: jnp.asarray(x, jnp.float32) for name, x in (new_filters(config) | changed).items()}
    return np.asarray(jax.jit(fbsp.FBSP(config).apply)({"params": params}, sound))


def test_a_new_spectrum_is_nearly_a_fourier_transform():
    """Order 0, bandwidth 1, whole centres: the waves run from -pi to pi over one sample less than their number."""
    rng = np.random.default_rng(0)
    sound = np.round(rng.normal(0.0, 3000.0, (2, 48 + 20 * 5))).astype(np.float32)
    found = decibels(SMALL, jnp.asarray(sound))
    assert found.shape == (2, 11, 6, 3)
    window = scipy.signal.get_window("blackmanharris", 48)
    frames = np.stack([sound[:, 20 * t : 20 * t + 48] for t in range(6)], 1) * 2.0 / 65535.0 + 1.0 / 65535.0
    time = np.pi * np.linspace(-1.0, 1.0, 64)[8:56]
    waves = np.exp(-1j * np.arange(33)[:, None] * time[None]) / 8.0
    power = np.abs((frames * window) @ waves.T) ** 2
    wanted = 10.0 * np.log10(power).transpose(0, 2, 1).reshape(2, 3, 11, 6).transpose(0, 2, 3, 1)
    loud = wanted > wanted.max() - 60.0
    assert loud.mean() > 0.9
    np.testing.assert_allclose(found[loud], wanted[loud], atol=0.01)


def test_training_begins_with_whole_centres():
    params = fbsp.FBSP(SMALL).init(jax.random.key(0), jnp.zeros((1, 48)))["params"]
    assert params.keys() == new_filters(SMALL).keys()
    for name, value in new_filters(SMALL).items():
        np.testing.assert_allclose(params[name], value, rtol=1e-6, atol=1e-7)


def test_filters_of_an_order_by_hand():
    """Complex numbers in float64; orders and bandwidths at which the spline is negative in places."""
    order, bandwidth, centre = np.array([2.0, 0.5, 1.0]), np.array([3.0, 2.2, 1.0]), np.array([1.5, 7.0, 3.0])
    real, imaginary = fbsp.filters(*(jnp.asarray(each, jnp.float32) for each in (order, bandwidth, centre)), 32)
    time = np.pi * np.linspace(-1.0, 1.0, 32)[None]
    angle = (bandwidth / order)[:, None] * time
    spline = (np.sin(angle) / angle).astype(complex) ** order[:, None]
    wanted = np.sqrt(bandwidth / 32.0)[:, None] * spline * np.exp(-1j * centre[:, None] * time)
    assert np.abs(spline[1].imag).max() > 0.1
    np.testing.assert_allclose(real, wanted.real, atol=1e-5)
    np.testing.assert_allclose(imaginary, wanted.imag, atol=1e-5)


def test_window_is_scipys():
    for length in (1654, 7):
        np.testing.assert_allclose(fbsp.blackman_harris(length), scipy.signal.get_window("blackmanharris", length))


@pytest.mark.parametrize(
    ("samples", "count"),
    # 5 s as published: 220500 = 1654 + 390.1 x 561. Up to a window just one, a sample more gives the next.
    [(220500, 392), (1000, 1), (1654, 1), (1655, 2)],
)
def test_frames_cover_the_sound_and_share_what_is_missing(samples, count):
    assert fbsp.num_frames(samples, 1654, 561) == count
    frames = np.asarray(fbsp.framed(jnp.arange(1.0, samples + 1.0)[None], 1654, 561))
    assert frames.shape == (1, count, 1654)
    missing = (count - 1) * 561 + 1654 - samples
    assert list(frames[0, 0]).index(1.0) == missing // 2
    assert list(frames[0, -1]).index(samples) == 1653 - (missing - missing // 2)
    if count > 1:
        np.testing.assert_array_equal(frames[0, 1, :-561], frames[0, 0, 561:])


def test_range_of_the_input():
    ends = fbsp.from_16_bits(jnp.asarray([[-32768.0, 32767.0, 0.0]]))
    np.testing.assert_allclose(ends, [[-1.0, 1.0, 1.0 / 65535.0]], atol=1e-7)
    # The same sound in [-1, 1], as T-VSL's release gives it: 90 dB less where it is loud.
    tone = np.sin(2 * np.pi * 8.0 / 64.0 * np.arange(148.0))[None].astype(np.float32)
    loud = decibels(SMALL, jnp.asarray(tone * esresnet.SOUND_SCALE))
    quiet = decibels(SMALL, jnp.asarray(tone))
    peak = loud > loud.max() - 3.0
    np.testing.assert_allclose((loud - quiet)[peak], 20.0 * np.log10(32768.0), atol=0.5)
    silence = decibels(SMALL, jnp.asarray(tone), window=jnp.zeros(48))
    np.testing.assert_allclose(silence, np.full((1, 11, 6, 3), -180.0), atol=1e-4)


def test_filters_the_bands_do_not_hold_are_left_out():
    """33 filters make three bands of 11; 36 samples give 19, so one filter too many for three bands of 6."""
    config = ESResNetConfig(fft_size=36, hop=20, window=36)
    sound = jnp.asarray(np.random.default_rng(0).normal(0.0, 3000.0, (1, 76)), jnp.float32)
    plain = decibels(config, sound)
    assert plain.shape == (1, 6, 3, 3)
    moved = decibels(config, sound, fb=jnp.ones(19).at[-1].set(9.0))
    np.testing.assert_array_equal(moved, plain)
    raised = decibels(config, sound, fb=jnp.ones(19).at[7].set(4.0))  # filter 7: band 1, bin 1
    np.testing.assert_allclose(raised[0, 1, :, 1] - plain[0, 1, :, 1], 10.0 * np.log10(4.0), atol=1e-3)


def test_adaptive_max_by_hand():
    x = jnp.asarray([[[[1.0], [5.0], [2.0], [7.0], [3.0]]]])  # five places
    np.testing.assert_array_equal(esresnet.adaptive_max(x, 1, 5), x)
    # Three cells: places 0 and 1, 1 to 3, 3 and 4.
    np.testing.assert_array_equal(esresnet.adaptive_max(x, 1, 3)[0, 0, :, 0], [5.0, 7.0, 7.0])
    np.testing.assert_array_equal(esresnet.adaptive_max(x.swapaxes(1, 2), 1, 1)[0, 0, :, 0], [7.0])


@pytest.fixture(scope="module")
def tower():
    """Two sounds, and weights near one's own at the start of training: to compute those takes longer."""
    rng = np.random.default_rng(0)
    sound = jnp.asarray(rng.normal(0.0, 3000.0, (2, 48 + 20 * 40)), jnp.float32)
    shapes = jax.eval_shape(esresnet.ESResNeXt(SMALL).init, jax.random.key(0), sound)["params"]
    flat = flax.traverse_util.flatten_dict(shapes)
    drawn = {path: rng.normal(0.0, (2.0 / (x.size // x.shape[-1])) ** 0.5, x.shape)
             for path, x in flat.items()}  # fmt: skip
    drawn |= {path: np.ones(x.shape) for path, x in flat.items() if path[-1] in ("scale", "variance")}
    params = flax.traverse_util.unflatten_dict(drawn) | {"fbsp": new_filters(SMALL)}
    return sound, {"params": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)}


def test_sounds_do_not_see_each_other_and_the_spectrum_stays_float32(tower):
    sound, variables = tower
    apply = jax.jit(lambda sound, dtype: esresnet.ESResNeXt(SMALL, dtype).apply(variables, sound), static_argnums=1)
    both, swapped = apply(sound, jnp.float32), apply(sound[::-1], jnp.float32)
    for name, value in both.items():
        np.testing.assert_allclose(value, swapped[name][::-1], atol=1e-4, err_msg=name)
    low = apply(sound, jnp.bfloat16)
    np.testing.assert_array_equal(low["spectrum"], both["spectrum"])
    assert {x.dtype for name, x in low.items() if name != "spectrum"} == {jnp.dtype(jnp.bfloat16)}
    error = np.abs(np.asarray(low["embedding"], np.float32) - both["embedding"]).max()
    assert error < 0.05 * np.abs(both["embedding"]).max()


def test_an_open_gate_changes_nothing_and_a_shut_one_leaves_the_bias(tower):
    """The embedding is the last layer of a mean that the fifth gate scales; the dense tokens know no fifth gate."""
    sound, variables = tower
    params = dict(variables["params"])
    gate, head = params["gate_5"], params["head"]

    def features(bias):
        shut = gate | {"norm": gate["norm"] | {"bias": jnp.full(64, bias), "scale": jnp.zeros(64)}}
        return jax.jit(esresnet.ESResNeXt(SMALL).apply)({"params": params | {"gate_5": shut}}, sound)

    opened, closed = features(30.0), features(-30.0)
    np.testing.assert_allclose(opened["embedding"], opened["dense"].mean((1, 2)), atol=1e-4)
    np.testing.assert_allclose(closed["embedding"], np.broadcast_to(head["bias"], (2, 5)), atol=1e-5)
    np.testing.assert_array_equal(opened["dense"], closed["dense"])
    half = features(0.0)["embedding"] - head["bias"][None]
    np.testing.assert_allclose(half, 0.5 * (opened["embedding"] - head["bias"][None]), atol=1e-4)


def test_five_seconds_give_eleven_by_thirteen_tokens():
    """Full size, nothing computed."""
    run = lambda x: esresnet.ESResNeXt(ESResNetConfig()).init_with_output(jax.random.key(0), x)[0]  # noqa: E731
    features = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 5 * SAMPLE_RATE), jnp.float32))
    assert {name: x.shape for name, x in features.items()} == {
        "spectrum": (2, 341, 392, 3),
        "stage_1": (2, 86, 98, 256),
        "stage_2": (2, 43, 49, 512),
        "stage_3": (2, 22, 25, 1024),
        "stage_4": (2, 11, 13, 2048),
        "embedding": (2, 1024),
        "dense": (2, 11, 13, 1024),
    }
