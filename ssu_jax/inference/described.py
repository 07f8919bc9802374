"""The nouns of prediction: one second of a video, and a video that is being described."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool

from ssu_jax.data import survey


@dataclasses.dataclass(frozen=True)
class SecondPrediction:
    """One second of a video.

    seconds: time of its picture.  mask: bool [y, x] at the video's size, upright.
    area:    share of the frame.   score: mean mask probability inside the mask, 0 when it is empty.
    """

    second: int
    seconds: float
    caption: str
    mask: Bool[np.ndarray, "y x"]
    area: float
    score: float


@dataclasses.dataclass
class Described:
    """A video that is being described: `predictions` can be gone through once, `notes` are complete after that.

    text: the phrases that were asked for, () for all that sounds.
    """

    info: survey.VideoInfo
    predictions: Iterator[SecondPrediction]
    notes: list[str]
    text: tuple[str, ...] = ()
