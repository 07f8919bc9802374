"""From what the model says to what a person asked for: masks at source size, sentences for ids.

Masks are enlarged bilinearly between pixel centres, without anti-aliasing, in NumPy: a compiled resize would
have to be compiled again for every size of video.
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssu_jax.types import Prediction


def to_prediction(
    mask_probabilities: Float[np.ndarray, "t y x"],
    ids: Int[np.ndarray, "t l"],
    tokenizer: Any,
    height: int,
    width: int,
) -> Prediction:
    """Masks at height x width and one sentence a frame. `tokenizer` needs `decode(ids) -> str`."""
    captions = tuple(tokenizer.decode(row) for row in ids)
    return Prediction(resize_probabilities(mask_probabilities, height, width), captions)


def resize_probabilities(
    probabilities: Float[np.ndarray, "t y x"], height: int, width: int
) -> Float[np.ndarray, "t height width"]:
    """Bilinear, half-pixel centres, edges repeated; float32. The same size comes back unchanged."""
    probabilities = np.asarray(probabilities, np.float32)
    if probabilities.shape[1:] == (height, width):
        return probabilities
    rows = _bilinear(probabilities.shape[1], height)
    columns = _bilinear(probabilities.shape[2], width)
    resized = np.empty((len(probabilities), height, width), np.float32)
    for source, target in zip(probabilities, resized, strict=True):
        np.matmul(rows @ source, columns.T, out=target)
    return resized


def score_of(probabilities: Float[np.ndarray, "y x"], mask: np.ndarray) -> float:
    """Mean probability inside the mask, 0 when it is empty."""
    return float(probabilities[mask].mean(dtype=np.float64)) if mask.any() else 0.0


@functools.lru_cache(maxsize=16)
def _bilinear(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: each row holds the two weights of one output pixel."""
    place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(place.astype(int), max(source - 2, 0))
    weights = np.zeros((target, source), np.float32)
    weights[np.arange(target), low] = 1 - (place - low)
    weights[np.arange(target), np.minimum(low + 1, source - 1)] += place - low
    return weights
