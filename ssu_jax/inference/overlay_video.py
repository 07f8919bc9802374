"""The annotated copy of a video: its own pictures and sound, with mask, sentence and level meter."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssu_jax.data import survey, video
from ssu_jax.visualization.overlay import Annotator, Layout
from ssu_jax.visualization.pictures import WORD_COLOURS, level_of
from ssu_jax.visualization.writer import AAC_RATES, VideoWriter, open_video

# A picture that stands longer is drawn again, so that meter and sentence go on; slower videos gain pictures.
REPEAT_SECONDS = 0.125
# The next picture is waited for this long, where a repeat would be due just before it.
_WAIT_SECONDS = 0.07
_METER_SECONDS = 0.05
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


@contextlib.contextmanager
def writing(path: str | os.PathLike, info: survey.VideoInfo) -> Iterator[Callable[..., None]]:
    """Gives `add_second(second, mask [y, x], caption, words)`, to be called for second 0, 1, ... to the last.

    words: (word, its mask) where single words are located; each is drawn in a colour that it keeps, and so is its
    name, in place of mask and caption.

    The video is decoded a second time, in step with the calls. Sound keeps its rate where AAC knows it (else
    48 kHz) and its channels where they are one, two or six (else two); it ends with the pictures.
    """
    rate = info.sample_rate if info.sample_rate in AAC_RATES else 48_000
    channel_layout = _LAYOUTS.get(info.channels, "stereo")
    layout = Layout.for_size(info.height, max(1, round(info.width * info.pixel_aspect)))
    sound = {"sample_rate": rate, "channel_layout": channel_layout} if info.sample_rate else {}
    with open_video(path, layout.height, layout.width, **sound) as writer:
        blocks = video.sound_blocks(info, rate, channel_layout) if info.sample_rate else iter(())
        yield _Overlay(info, layout, writer, _Sound(blocks, rate)).add_second


class _Overlay:
    def __init__(self, info: survey.VideoInfo, layout: Layout, writer: VideoWriter, sound: "_Sound"):
        self._info, self._layout, self._writer, self._sound = info, layout, writer, sound
        self._annotator = Annotator(layout)
        self._pictures = video.pictures(info)
        self._upcoming = next(self._pictures, None)
        self._shown: np.ndarray | None = None
        self._last = -REPEAT_SECONDS
        self._colours: dict[str, tuple[int, int, int]] = {}

    def add_second(
        self, second: int, mask: np.ndarray, caption: str, words: Sequence[tuple[str, np.ndarray]] = ()
    ) -> None:
        """Writes all pictures and the sound until the second's end."""
        parts = [(word, part, self._colour_of(word)) for word, part in words]
        self._annotator.begin_second(mask, caption, parts)
        end = self._info.end_of(second)
        heard = self._sound.until(end)
        if heard.size:
            self._writer.write_sound(heard)
        mono = heard.mean(axis=0) / 32768.0
        while True:
            seconds = self._next_time()
            if seconds >= end:
                return
            if self._upcoming is not None and seconds == self._upcoming[0]:
                layout = self._layout
                self._shown = video.upright(self._info, self._upcoming[1], layout.picture_height, layout.picture_width)
                self._upcoming = next(self._pictures, None)
            start = max(0, round((seconds - second) * self._sound.rate))
            level_db = level_of(mono[start : start + round(_METER_SECONDS * self._sound.rate)])
            left = self._info.duration_seconds - seconds
            self._writer.write(self._annotator.draw(self._shown, level_db), seconds, min(left, REPEAT_SECONDS))
            self._last = seconds

    def _colour_of(self, word: str) -> tuple[int, int, int]:
        """The next one at a word's first appearance."""
        return self._colours.setdefault(word, WORD_COLOURS[len(self._colours) % len(WORD_COLOURS)])

    def _next_time(self) -> float:
        """Of the next picture, or of a repeat: every eighth of a second, and at the start of every second."""
        due = min(self._last + REPEAT_SECONDS, math.floor(self._last) + 1.0)
        if self._upcoming is not None and self._upcoming[0] <= due + _WAIT_SECONDS:
            return self._upcoming[0]
        return due


class _Sound:
    """Blocks of any length -> the sound until any time, in order."""

    def __init__(self, blocks: Iterator[np.ndarray], rate: int):
        self._blocks, self.rate = blocks, rate
        self._left = np.zeros((1, 0), np.int16)
        self._position = 0

    def until(self, seconds: float) -> np.ndarray:
        """int16 [channels, samples] that follow what was given before; less where the sound ends."""
        wanted = round(seconds * self.rate) - self._position
        parts, have = [self._left], self._left.shape[1]
        while have < wanted and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            have += block.shape[1]
        whole = np.concatenate([part for part in parts if part.size] or parts[:1], axis=1)
        self._left = whole[:, wanted:]
        self._position += min(wanted, whole.shape[1])
        return whole[:, :wanted]
