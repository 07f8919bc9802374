"""T-VSL on any video: for every second and word a heat map, a mask, a box and how likely the word sounds.

A second is looked at in its middle; the sound is that of `tvsl.sound_seconds` seconds around it, at the ends of the
video the first or last ones, of a shorter video repeated. Seconds without sound (as in predictor.py) have no words.
Several seconds make one call of the program; the last call is filled up, so that one program does for any video.
"""

import collections
import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int16

from ssu_jax import checkpoint as checkpoints
from ssu_jax import localization, models
from ssu_jax.config import Config
from ssu_jax.data import audio, survey, video
from ssu_jax.inference import loading
from ssu_jax.inference.ahead import ahead
from ssu_jax.inference.described import Described, LocatedWord, SecondPrediction
from ssu_jax.inference.heard import Heard
from ssu_jax.inference.phrases import phrases_of
from ssu_jax.inference.predictor import SILENCE_DB, notes_on_damage
from ssu_jax.models.tvsl import locating
from ssu_jax.tokenizer.phrases import phrase_ids
from ssu_jax.types import UserError
from ssu_jax.visualization.pictures import level_of

SHIPPED = "shipped:tvsl"
MOST_FOUND = 4  # words of a second that detection may find by itself
_AT_ONCE = 8  # seconds of one call


class _Second(NamedTuple):
    """What the model takes of a second."""

    number: int
    picture: np.ndarray  # uint8 [y, x, 3]
    sound: np.ndarray  # float32, as in types.Mixtures
    audible: bool


class Locator:
    """A model ready to find words in videos; holds the weights and the compiled program."""

    def __init__(self, config: Config, params: Any, tokenizer: Any, remark: str = ""):
        """remark: what people should know of the weights; it stands among the notes of every video."""
        if config.family != "tvsl":
            raise UserError(f"--model tvsl locates words, the checkpoint holds family {config.family}: leave --model "
                            "out, or name a run of configs/tvsl.py")  # fmt: skip
        self.config, self._tokenizer, self._remark = config, tokenizer, remark
        self._params, model = jax.device_put(params), models.build(config, tokenizer)
        # Made once: every video that follows finds them compiled.
        self._find, self._locate = locating.make_find(model, MOST_FOUND), locating.make_locate_words(model)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None = None) -> "Locator":
        """From a working directory, a sealed step or an exported folder; default: the small one that ships."""
        place = checkpoints.locate(checkpoint or SHIPPED)
        config, tokenizer, params = checkpoints.read_model(place, loading.parameter_shapes)
        return cls(config, params, tokenizer, loading.remark_on(place))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The results that there are to write (outputs.KINDS)."""
        return ("json", "vtt", "masks", "heat", "overlay")

    def predict(self, source: str | os.PathLike | survey.VideoInfo, text: str | None = None) -> Described:
        """Surveys the file now and looks at it second by second as the result is gone through.

        text: words with commas between, "violin, flute"; without it those that the model finds, up to MOST_FOUND a
        second. Raises UserError for files that survey refuses, a file without sound, words that the model does not
        know, and on the way for damage.
        """
        info = source if isinstance(source, survey.VideoInfo) else survey.survey(source)
        if not info.sample_rate:
            raise UserError(f"{info.path} has no sound: T-VSL looks for what makes the sound, give it a video with one")
        phrases = phrases_of(text, self.config.data.classes) if text is not None else ()
        described = Described(info, iter(()), [*info.notes, *self._remarks(info)], phrases)
        described.predictions = self._predictions(info, described.notes, phrases, self._program(phrases))
        return described

    def _program(self, phrases: tuple[str, ...]) -> Callable[..., tuple]:
        """(pictures, sound) -> heat [b, k, y, x], probabilities [b, k], classes [b, k] (of given words their order)."""
        if not phrases:
            return functools.partial(self._find, self._params)
        ids, order = phrase_ids(self._tokenizer, phrases), np.arange(len(phrases))[None]
        return lambda pictures, sound: (
            *self._locate(self._params, pictures, sound, ids),
            np.repeat(order, len(pictures), axis=0),
        )

    def _remarks(self, info: survey.VideoInfo) -> list[str]:
        released = "mode released: as the public code behaves, whose maps say nothing of whether a word sounds"
        rate, known = info.sample_rate, self.config.data.sample_rate
        low = f"its sound has {rate} Hz, the sound encoder knows {known} Hz: above {rate // 2} Hz it hears nothing"
        is_low = self.config.tvsl.trio == "audioclip" and rate < known
        return [*[released] * (self.config.tvsl.mode == "released"), *filter(None, [self._remark]), *[low] * is_low]

    def _predictions(
        self, info: survey.VideoInfo, notes: list[str], phrases: tuple[str, ...], program: Callable
    ) -> Iterator[SecondPrediction]:
        seen, heard, found = video.Tally(), video.Tally(), Heard()
        names, unseen, any_sound = phrases or self.config.data.classes, set(phrases), False
        for seconds, answers in self._looked_at(ahead(self._seconds(info, seen, heard)), program):
            answers = answers and tuple(map(np.asarray, answers))
            for row, second in enumerate(seconds):
                words = ()
                if second.audible:
                    any_sound = True
                    heat, probability, classes = (part[row] for part in answers)
                    words = self._words(info, heat, probability, [names[one] for one in classes], bool(phrases))
                sounding = [word.word for word in words if word.box is not None]
                found.add(second.number, [(word, True) for word in sounding])
                unseen -= set(sounding)
                yield _second(info, second.number, words)
        if not any_sound:
            notes.append("the sound is silent: no word is found")
        notes += found.notes()
        if any_sound and unseen:
            notes.append(f"never found: {', '.join(word for word in phrases if word in unseen)}")
        notes += notes_on_damage(seen, heard)

    def _words(self, info, heat, probability, names, given: bool) -> tuple[LocatedWord, ...]:
        chosen = np.flatnonzero(given | (probability > localization.DETECTED))
        if not len(chosen):
            return ()
        released = self.config.tvsl.mode == "released"
        heat = localization.enlarged(heat[chosen], info.height, info.width, bicubic=released)
        masks, heat = localization.cut(heat, self.config), np.clip(heat, 0.0, 1.0)  # bicubic overshoots
        return tuple(
            LocatedWord(names[number], one, mask, box_of(mask), float(probability[number]))
            for number, one, mask in zip(chosen, heat, masks, strict=True)
        )

    def _seconds(self, info: survey.VideoInfo, seen, heard) -> Generator[_Second, None, None]:
        data, tvsl = self.config.data, self.config.tvsl
        pictures = video.second_pictures(info, data.image_size, seen)
        windows = sound_windows(video.second_sounds(info, data.sample_rate, heard), tvsl.sound_seconds)
        for number, (picture, (sound, own)) in enumerate(zip(pictures, windows, strict=True)):
            wave = sound.astype(np.float64) / 32768.0
            if tvsl.trio == "small":
                wave = audio.second_patches(wave, data.sample_rate, tvsl.sound_seconds, data.log_offset)
            yield _Second(number, picture, wave.astype(np.float32), level_of(own) > SILENCE_DB)

    def _looked_at(
        self, seconds: Generator[_Second, None, None], program: Callable
    ) -> Iterator[tuple[list[_Second], tuple | None]]:
        """Groups of seconds with the model's word on them, given when the next one runs; None if all are silent."""
        waiting = None
        with contextlib.closing(seconds):
            while group := list(itertools.islice(seconds, _AT_ONCE)):
                filled = group + group[-1:] * (_AT_ONCE - len(group))
                answers = None
                if any(second.audible for second in group):
                    answers = program(
                        np.stack([one.picture for one in filled]), np.stack([one.sound for one in filled])
                    )
                if waiting:
                    yield waiting
                waiting = group, answers
            if waiting:
                yield waiting


def sound_windows(
    sounds: Iterable[Int16[np.ndarray, "samples"]], length: int
) -> Iterator[tuple[Int16[np.ndarray, "window"], Int16[np.ndarray, "samples"]]]:
    """For each second the `length` seconds around it, and its own sound.

    The second stands in the middle (of an even number: after it); at the ends the window stays inside the sound, and
    sound that is shorter than a window is repeated.
    """
    window: collections.deque = collections.deque(maxlen=length)
    given, read, after = 0, 0, (length - 1) // 2
    for sound in sounds:
        window.append(sound)
        read += 1
        while read >= length and given < read - after:
            yield np.concatenate(window), window[given - (read - length)]
            given += 1
    while given < read:  # the last seconds, or all of a short sound
        whole = np.concatenate(list(itertools.islice(itertools.cycle(window), length)))
        yield whole, window[given - max(read - length, 0)]
        given += 1


def box_of(mask: Bool[np.ndarray, "y x"]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom around a mask, pixels, right and bottom outside; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)).tolist(), np.flatnonzero(mask.any(axis=0)).tolist()
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else None


def _second(info: survey.VideoInfo, number: int, words: tuple[LocatedWord, ...]) -> SecondPrediction:
    """All words of a second: the union of their masks, and their names for a sentence."""
    sounding = [word for word in words if word.box is not None]
    mask = np.any([word.mask for word in sounding], axis=0) if sounding else np.zeros((info.height, info.width), bool)
    heat: Float[np.ndarray, "y x"] = np.max([word.heat for word in sounding], axis=0) if sounding else mask * 0.0
    score = float(heat[mask].mean()) if mask.any() else 0.0
    caption = ", ".join(word.word for word in sounding)
    return SecondPrediction(number, info.time_of(number), caption, mask, float(mask.mean()), score, words)
