"""Sound -> log-mel patches, by the definition that came with VGGish (Hershey et al. 2017).

At 16 kHz: frames of 25 ms every 10 ms, periodic Hann window, magnitude (not power) of a 512-point Fourier
transform, 64 triangles linear in HTK mel from 125 to 7500 Hz, log(mel + offset). VGGish's offset is 0.01,
YAMNet's 0.001. One second gives one patch of 96 frames: 0.96 s that begin with the second.

Computed in float64 and rounded once: in single precision the rounding of a loud band, 1e-5 of magnitude,
is 1e-3 of the logarithm in a silent one.
"""

import functools

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Float, Int

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
MEL_BANDS = 64
MEL_LOW_HZ = 125.0
MEL_HIGH_HZ = 7500.0
PATCH_FRAMES = 96


def log_mel(sound: Float[np.ndarray, "samples"], sample_rate: int, log_offset: float) -> Float[np.ndarray, "frames f"]:
    """log(mel + log_offset), float32, of a sound in [-1, 1]; only frames that lie whole in the sound.

    There are 1 + floor((samples - window) / hop) of them, none when the sound is shorter than a window.
    """
    magnitude = stft_magnitude(sound, sample_rate)
    # Sparse: a bin lies in at most two triangles, and the order of the sum is one whatever the thread count.
    mel = (_mel_matrix(sample_rate, 2 * (magnitude.shape[1] - 1)) @ np.ascontiguousarray(magnitude.T)).T
    return np.log(mel + log_offset).astype(np.float32)


def second_patches(
    sound: Float[np.ndarray, "samples"], sample_rate: int, num_seconds: int, log_offset: float
) -> Float[np.ndarray, "t m f"]:
    """One patch of 96 log-mel frames a second, float32; patch t begins with second t.

    The sound is cut or padded with silence to `num_seconds`. A patch spans 0.975 s, so it never sees the next second.
    """
    window, hop = _window_and_hop(sample_rate)
    needed = (PATCH_FRAMES - 1) * hop + window
    missing = max(0, num_seconds * sample_rate - len(sound))
    whole = np.pad(sound, (0, missing)) if missing else sound[: num_seconds * sample_rate]
    patches = np.empty((num_seconds, PATCH_FRAMES, MEL_BANDS), np.float32)
    # Second by second, though the spectra of all could be one call: what a second takes stays in the cache.
    for patch, second in zip(patches, whole.reshape(num_seconds, sample_rate), strict=True):
        patch[:] = log_mel(second[:needed], sample_rate, log_offset)
    return patches


def stft_magnitude(sound: Float[np.ndarray, "samples"], sample_rate: int) -> Float[np.ndarray, "frames bins"]:
    """float64 magnitudes of the short-time Fourier transform; the transform is the next power of two long."""
    window, hop = _window_and_hop(sample_rate)
    length = 1 << (window - 1).bit_length()
    if len(sound) < window:
        return np.zeros((0, length // 2 + 1))
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(sound, np.float64), window)[::hop]
    padded = np.empty((len(frames), length))  # here: scipy would copy the frames once more to pad them
    np.multiply(frames, _periodic_hann(window), out=padded[:, :window])
    padded[:, window:] = 0.0
    return np.abs(scipy.fft.rfft(padded))


def to_float(sound: Int[np.ndarray, "samples"], sample_rate: int, wanted_rate: int) -> Float[np.ndarray, "resampled"]:
    """int16 to float64 in [-1, 1), resampled (polyphase) where the rates differ."""
    scaled = sound.astype(np.float64)
    scaled *= 1 / 32768  # exact, and faster than a division
    if sample_rate == wanted_rate:
        return scaled
    import scipy.signal  # half of the time that this module and all it needs take to load

    common = np.gcd(sample_rate, wanted_rate)
    return scipy.signal.resample_poly(scaled, wanted_rate // common, sample_rate // common)


def _window_and_hop(sample_rate: int) -> tuple[int, int]:
    return round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)


@functools.cache
def _periodic_hann(window: int) -> Float[np.ndarray, "window"]:
    return np.hanning(window + 1)[:-1]


@functools.cache
def _mel_matrix(sample_rate: int, length: int) -> scipy.sparse.csr_array:
    """[64, length / 2 + 1]: triangles whose sides are straight on the mel axis; the 0 Hz bin stays out."""
    bins = _hz_to_mel(np.arange(length // 2 + 1) * sample_rate / length)
    edges = np.linspace(_hz_to_mel(MEL_LOW_HZ), _hz_to_mel(MEL_HIGH_HZ), MEL_BANDS + 2)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    weights[:, 0] = 0.0
    return scipy.sparse.csr_array(weights)


def _hz_to_mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)
