"""The nouns of prediction: one second of a video, and a video that is being described."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from ssu_jax.data import survey


@dataclasses.dataclass(frozen=True)
class LocatedWord:
    """Where a word is in one second, as T-VSL sees it.

    heat: float32 [y, x] in [0, 1] at the video's size.  mask: where it is above the threshold.
    box:  left, top, right, bottom around the mask, pixels, right and bottom outside; None where the mask is empty.
    score: probability that the word sounds.
    """

    word: str
    heat: Float[np.ndarray, "y x"]
    mask: Bool[np.ndarray, "y x"]
    box: tuple[int, int, int, int] | None
    score: float


@dataclasses.dataclass(frozen=True)
class SecondPrediction:
    """One second of a video.

    seconds: time of its picture.  mask: bool [y, x] at the video's size, upright.
    area:    share of the frame.   score: mean mask probability inside the mask, 0 when it is empty.
    words:   of T-VSL, whose mask is the union of theirs; else empty.
    """

    second: int
    seconds: float
    caption: str
    mask: Bool[np.ndarray, "y x"]
    area: float
    score: float
    words: tuple[LocatedWord, ...] = ()


@dataclasses.dataclass
class Described:
    """A video that is being described: `predictions` can be gone through once, `notes` are complete after that.

    text: the phrases that were asked for, () for all that sounds.
    """

    info: survey.VideoInfo
    predictions: Iterator[SecondPrediction]
    notes: list[str]
    text: tuple[str, ...] = ()
