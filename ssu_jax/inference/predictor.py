"""Any video -> a mask and a sentence for every second, in windows of one shape and in constant memory.

The model sees windows of `config.data.num_frames` seconds. They follow one another; the last one reaches back,
so that it is full too, and only its new seconds are used. A video shorter than a window is padded with
frames marked invalid. Every window has the same shape: one compilation whatever the video.

A second without sound has no sounding pixel, whatever the model believes: below -80 dB of full scale (root
mean square of the second; digital silence and absent sound are that) mask and sentence are empty.
"""

import collections
import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssu_jax import models
from ssu_jax.config import Config
from ssu_jax.data import audio, survey, video
from ssu_jax.inference import guide, loading
from ssu_jax.inference.ahead import ahead
from ssu_jax.inference.described import Described, SecondPrediction
from ssu_jax.inference.heard import Heard
from ssu_jax.inference.phrases import phrases_of
from ssu_jax.models import decoding, guided, postprocess
from ssu_jax.types import MASK_THRESHOLD, UserError
from ssu_jax.visualization.pictures import level_of

# 16-bit sound ends at -96 dB; coded silence is dithered or rings a few dB above that.
SILENCE_DB = -80.0
# A doubled time stamp now and then is no news.
_NOTED_LATE_SHARE = 0.05


class _Window(NamedTuple):
    """`config.data.num_frames` seconds as the model takes them; those before `first_new` were described before."""

    frames: np.ndarray  # uint8 [1, t, y, x, 3]
    log_mel: np.ndarray  # float32 [1, t, m, f]
    valid: np.ndarray  # bool [1, t]
    audible: list[bool]  # of its seconds; short where the video is
    first_new: int
    last_second: int


class Predictor:
    """A model ready to describe videos; holds the weights and the compiled program.

    `describe` defaults to the model the config describes (see models.decoding.make_describe); tests give their own.
    `tokenizer` turns a second's ids into its sentence; where it also has `sounds(ids)`, pairs of a name and whether its
    source is seen, the notes name what was heard.

    Pictures and sound are read while the model looks at the window before, and the program runs while the results of
    the window before that are written.
    """

    def __init__(self, config: Config, params: Any, tokenizer: Any, describe: Callable | None = None):
        self.config = config
        self._params = params
        self._tokenizer = tokenizer
        self._sounds_of = getattr(tokenizer, "sounds", None)
        self._describe = describe or decoding.make_describe(models.build(config))

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None = None) -> "Predictor":
        """From a working directory, a sealed step or an exported folder; default: the shipped model."""
        config, tokenizer, params = loading.load(checkpoint)
        if config.family != "ssuformer":
            raise UserError(f"--model ssuformer writes sentences, the checkpoint holds family {config.family}: leave "
                            "--model out, or name a run of SSUFormer")  # fmt: skip
        return cls(config, params, tokenizer)

    @classmethod
    def from_published(cls, folders: Mapping[str, pathlib.Path] | None = None) -> "Predictor":
        """Late fusion of published networks, from the cache of `ssu weights` or from converted folders by name."""
        config, tokenizer, params = loading.load_published(folders)
        return cls(config, params, tokenizer)

    @functools.cached_property
    def _guided(self) -> tuple[Callable, Callable]:
        model = models.build(self.config)
        return guided.make_describe(model), guided.make_embed(model)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The results that there are to write (outputs.KINDS)."""
        return ("json", "vtt", "masks", "overlay")

    def predict(self, source: str | os.PathLike | survey.VideoInfo, text: str | None = None) -> Described:
        """Surveys the file now and describes it second by second as the result is gone through.

        text: words with commas between, such as "bell, red dog": masks and sentences of all else are left out (see
        models.guided). Raises UserError for files that survey refuses, for a text or a model that phrases_of,
        guide.check or guide.make refuses, and on the way for damage.
        """
        info = source if isinstance(source, survey.VideoInfo) else survey.survey(source)
        describe, phrases = self._describe, ()
        if text is not None:
            phrases = phrases_of(text, self.config.data.classes)
            guide.check(self.config)
            describe_guided, embed = self._guided
            asked = guide.make(phrases, self.config, self._tokenizer, functools.partial(embed, self._params))
            describe = functools.partial(describe_guided, guide=asked)
        described = Described(info, iter(()), list(info.notes), phrases)
        described.predictions = self._predictions(info, described.notes, describe)
        return described

    def _predictions(self, info: survey.VideoInfo, notes: list[str], describe: Callable) -> Iterator[SecondPrediction]:
        seen, heard, sounds = video.Tally(), video.Tally(), Heard()
        any_sound = False
        for window, found in self._looked_at(ahead(self._windows(info, seen, heard)), describe):
            masks, ids = (np.asarray(part)[0] for part in found) if found else (None, None)
            for place in range(window.first_new, len(window.audible)):
                second = window.last_second + 1 - len(window.audible) + place
                audible = window.audible[place]
                any_sound |= audible
                if audible and self._sounds_of:
                    sounds.add(second, self._sounds_of(ids[place]))
                yield self._second(info, second, (masks[place], ids[place]) if audible else None)
        if info.sample_rate and not any_sound:
            notes.append("the sound is silent: every mask and every sentence is empty")
        notes += sounds.notes() + notes_on_damage(seen, heard)

    def _windows(self, info: survey.VideoInfo, seen: video.Tally, heard: video.Tally) -> Generator[_Window, None, None]:
        data = self.config.data
        window = collections.deque(maxlen=data.num_frames)
        pictures = video.second_pictures(info, data.image_size, seen)
        sounds = video.second_sounds(info, data.sample_rate, heard)
        pending = 0
        for second, pair in enumerate(zip(pictures, sounds, strict=True)):
            window.append(pair)
            pending += 1
            if pending == data.num_frames or second + 1 == info.num_seconds:
                yield self._window(window, len(window) - pending, second)
                pending = 0

    def _window(self, seconds: collections.deque, first_new: int, last_second: int) -> _Window:
        data = self.config.data
        t, size = data.num_frames, data.image_size
        frames = np.zeros((1, t, size, size, 3), np.uint8)
        valid = np.zeros((1, t), bool)
        for place, (frame, _) in enumerate(seconds):
            frames[0, place], valid[0, place] = frame, True
        sound = np.concatenate([part for _, part in seconds]) / np.float32(32768)
        log_mel = audio.second_patches(sound, data.sample_rate, t, data.log_offset)
        audible = [level_of(sound) > SILENCE_DB for _, sound in seconds]
        return _Window(frames, log_mel[None], valid, audible, first_new, last_second)

    def _looked_at(
        self, windows: Generator[_Window, None, None], describe: Callable
    ) -> Iterator[tuple[_Window, tuple | None]]:
        """Each window with the model's word on it (None if nothing new sounds), which is given when the next one runs.

        JAX starts a program and does not wait for it.
        """
        waiting = None
        with contextlib.closing(windows):
            for window in windows:
                sounds = any(window.audible[window.first_new :])
                found = describe(self._params, window.frames, window.log_mel, window.valid) if sounds else None
                if waiting:
                    yield waiting
                waiting = window, found
        if waiting:
            yield waiting

    def _second(self, info: survey.VideoInfo, second: int, found: tuple | None) -> SecondPrediction:
        if found is None:
            mask, score, caption = np.zeros((info.height, info.width), bool), 0.0, ""
        else:
            probabilities = postprocess.resize_probabilities(found[0][None], info.height, info.width)[0]
            mask = probabilities > MASK_THRESHOLD
            score, caption = postprocess.score_of(probabilities, mask), self._tokenizer.decode(found[1])
        return SecondPrediction(second, info.time_of(second), caption, mask, float(mask.mean()), score)


def notes_on_damage(seen: video.Tally, heard: video.Tally) -> list[str]:
    notes = []
    for tally, what in ((seen, "pictures"), (heard, "sound")):
        if tally.damaged:
            notes.append(f"{tally.damaged} of {tally.packets} packets of the {what} are damaged: passed over")
    if seen.late > _NOTED_LATE_SHARE * seen.packets:
        notes.append(f"the clock of the file jumps back: {seen.late} pictures after that are left out")
    return notes
