"""Any video -> a mask and a sentence for every second, in windows of one shape and in constant memory.

The model sees windows of `config.data.num_frames` seconds. They follow one another; the last one reaches back,
so that it is full too, and only its new seconds are used. A video shorter than a window is padded with
frames marked invalid. Every window has the same shape: one compilation whatever the video.

A second without sound has no sounding pixel, whatever the model believes: below -80 dB of full scale (root
mean square of the second; digital silence and absent sound are that) mask and sentence are empty.
"""

import collections
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssu_jax import models
from ssu_jax.config import Config
from ssu_jax.data import audio, survey, video
from ssu_jax.inference import loading
from ssu_jax.inference.described import Described, SecondPrediction
from ssu_jax.models import decoding, postprocess
from ssu_jax.types import MASK_THRESHOLD
from ssu_jax.visualization.pictures import level_of

# 16-bit sound ends at -96 dB; coded silence is dithered or rings a few dB above that.
SILENCE_DB = -80.0
# A doubled time stamp now and then is no news.
_NOTED_LATE_SHARE = 0.05


class Predictor:
    """A model ready to describe videos; holds the weights and the compiled program.

    `describe` defaults to the model the config describes (see models.decoding.make_describe); tests give their own.
    """

    def __init__(self, config: Config, params: Any, tokenizer: Any, describe: Callable | None = None):
        self.config = config
        self._params = params
        self._tokenizer = tokenizer
        self._describe = describe or decoding.make_describe(models.build(config))

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None = None) -> "Predictor":
        """From a working directory, a sealed step or an exported folder; default: the shipped model."""
        config, tokenizer, params = loading.load(checkpoint)
        return cls(config, params, tokenizer)

    def predict(self, source: str | os.PathLike | survey.VideoInfo) -> Described:
        """Surveys the file now and describes it second by second as the result is gone through.

        Raises UserError for files that survey refuses, and on the way for damage.
        """
        info = source if isinstance(source, survey.VideoInfo) else survey.survey(source)
        described = Described(info, iter(()), list(info.notes))
        described.predictions = self._predictions(info, described.notes)
        return described

    def _predictions(self, info: survey.VideoInfo, notes: list[str]) -> Iterator[SecondPrediction]:
        data = self.config.data
        seen, heard = video.Tally(), video.Tally()
        window = collections.deque(maxlen=data.num_frames)
        pictures = video.second_pictures(info, data.image_size, seen)
        sounds = video.second_sounds(info, data.sample_rate, heard)
        pending, any_sound = 0, False
        for second, pair in enumerate(zip(pictures, sounds, strict=True)):
            window.append(pair)
            pending += 1
            if pending < data.num_frames and second + 1 < info.num_seconds:
                continue
            audible = [level_of(sound) > SILENCE_DB for _, sound in window]
            any_sound |= any(audible[-pending:])
            masks, ids = self._look(window) if any(audible[-pending:]) else (None, None)
            for place in range(len(window) - pending, len(window)):
                number = second + 1 - len(window) + place
                found = (masks[place], ids[place]) if audible[place] else None
                yield self._second(info, number, found)
            pending = 0
        if info.sample_rate and not any_sound:
            notes.append("the sound is silent: every mask and every sentence is empty")
        notes += _notes_on_damage(seen, heard)

    def _look(self, window: collections.deque) -> tuple[np.ndarray, np.ndarray]:
        """The model's word on one window: mask probabilities [t, y, x] and ids [t, l]."""
        data = self.config.data
        t, size = data.num_frames, data.image_size
        frames = np.zeros((1, t, size, size, 3), np.uint8)
        valid = np.zeros((1, t), bool)
        for place, (frame, _) in enumerate(window):
            frames[0, place], valid[0, place] = frame, True
        sound = np.concatenate([part for _, part in window]) / np.float32(32768)
        log_mel = audio.second_patches(sound, data.sample_rate, t, data.log_offset)
        masks, ids = self._describe(self._params, frames, log_mel[None], valid)
        return np.asarray(masks)[0], np.asarray(ids)[0]

    def _second(self, info: survey.VideoInfo, second: int, found: tuple | None) -> SecondPrediction:
        if found is None:
            mask, score, caption = np.zeros((info.height, info.width), bool), 0.0, ""
        else:
            probabilities = postprocess.resize_probabilities(found[0][None], info.height, info.width)[0]
            mask = probabilities > MASK_THRESHOLD
            score, caption = postprocess.score_of(probabilities, mask), self._tokenizer.decode(found[1])
        return SecondPrediction(second, info.time_of(second), caption, mask, float(mask.mean()), score)


def _notes_on_damage(seen: video.Tally, heard: video.Tally) -> list[str]:
    notes = []
    for tally, what in ((seen, "pictures"), (heard, "sound")):
        if tally.damaged:
            notes.append(f"{tally.damaged} of {tally.packets} packets of the {what} are damaged: passed over")
    if seen.late > _NOTED_LATE_SHARE * seen.packets:
        notes.append(f"the clock of the file jumps back: {seen.late} pictures after that are left out")
    return notes
