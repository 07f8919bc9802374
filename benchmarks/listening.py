"""Does the model listen? Fresh clips of the built-in world, their pictures left alone and their sound changed.

    python benchmarks/listening.py --json listening.json [--checkpoint C] [--num-clips 200]

silence         the sound is digital silence: hardly a pixel and hardly a word may remain.
shuffled        the seconds of the sound change places, each to another one: the masks must fall apart.
counterfactual  a source sounds alone, then another object in view sounds at the same times instead: the mask must
                move. A frame is right when the IoU with the object that sounds is above 0.5 and above that with
                the other object.

The clips are those of `test` with a seed of their own, their pictures after JPEG as in records. Exit code 1 when a
target is missed.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator

import numpy as np
import tqdm

from ssu_jax import files, models
from ssu_jax.data import pipeline, records
from ssu_jax.data.synthetic import make_clip, make_counterfactual
from ssu_jax.inference import loading
from ssu_jax.models import decoding, postprocess
from ssu_jax.types import MASK_THRESHOLD, Clip, UserError

SEED = 31415  # used for nothing else, so no model has been trained on these clips
BATCH_SIZE = 10
# name: (lowest, highest) value that passes
TARGETS = {
    "silence/mean_area": (0.0, 0.002),
    "silence/empty_sentences": (0.99, 1.0),
    "shuffled/iou": (0.0, 0.30),
    "counterfactual/moved": (0.85, 1.0),
    "counterfactual/right_before_and_after": (0.75, 1.0),
}


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="workdir, sealed step or exported folder (default: the shipped model)")
    parser.add_argument("--num-clips", type=int, default=200, help="clips of each kind (default: 200)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the clips")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    args = parser.parse_args(arguments)
    try:
        figures = measure(Listener(args.checkpoint), args.seed, args.num_clips)
        missed = [name for name, (low, high) in TARGETS.items() if not low <= figures[name] <= high]
        result = {**figures, "targets": TARGETS, "missed": missed, "seed": args.seed, "checkpoint": args.checkpoint}
        if args.json:
            files.atomic_write(args.json, json.dumps(result, indent=1) + "\n")
    except UserError as error:
        print(f"listening: error: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in figures.items():
        low, high = TARGETS.get(name, (None, None))
        wanted = "" if low is None else f"   wanted {low:g} to {high:g}{'   MISSED' if name in missed else ''}"
        print(f"{name:40s} {value:8.4f}{wanted}" if isinstance(value, float) else f"{name:40s} {value:8d}")
    return 1 if missed else 0


class Listener:
    """A trained model that answers clips with masks and sentences."""

    def __init__(self, name: str | None):
        """name: of a checkpoint, as `ssu evaluate` takes it."""
        self._config, self._tokenizer, self._params = loading.load(name)
        self._describe = decoding.make_describe(models.build(self._config))

    def __call__(self, clips: list[Clip]) -> tuple[np.ndarray, list[list[str]]]:
        """bool [clips, t, y, x] and the sentences of each clip's frames. At most BATCH_SIZE clips."""
        examples = [pipeline.clip_to_example(clip, self._config.data, self._tokenizer) for clip in clips]
        examples += examples[:1] * (BATCH_SIZE - len(clips))  # one shape, compiled once
        parts = [np.stack(part) for part in zip(*((e.frames, e.log_mel, e.frame_valid) for e in examples), strict=True)]
        probabilities, ids = (np.asarray(part)[: len(clips)] for part in self._describe(self._params, *parts))
        rows, columns = clips[0].frames.shape[1:3]
        if probabilities.shape[2:] != (rows, columns):
            probabilities = np.stack([postprocess.resize_probabilities(clip, rows, columns) for clip in probabilities])
        sentences = [[self._tokenizer.decode(row.tolist()) for row in clip] for clip in ids]
        return probabilities > MASK_THRESHOLD, sentences


def measure(listen: Listener, seed: int, num_clips: int) -> dict[str, float | int]:
    """All figures, by name."""
    clips = (make_clip(seed, "test", index) for index in range(num_clips))
    pairs = (pair for pair in (make_counterfactual(seed, "test", index) for index in itertools.count()) if pair)
    return {
        **measure_silence_and_shuffling(listen, _batches(clips, num_clips, "silence, shuffled"), seed),
        **measure_counterfactuals(listen, _batches(pairs, num_clips, "counterfactual")),
    }


def measure_silence_and_shuffling(listen: Listener, batches: Iterator[list[Clip]], seed: int) -> dict:
    """Area and words in digital silence; IoU on the frames that truly sound, with the true sound and a shuffled one."""
    rng = np.random.default_rng(seed)
    areas, empty, intact, shuffled = [], [], [], []
    for batch in batches:
        clips = [_as_recorded(clip) for clip in batch]
        masks, sentences = listen([_with_sound(clip, np.zeros_like(clip.sound)) for clip in clips])
        areas += masks.mean((2, 3)).ravel().tolist()
        empty += [not sentence for row in sentences for sentence in row]
        heard, _ = listen(clips)
        misheard, _ = listen([_with_sound(clip, shuffle_seconds(clip, rng)) for clip in clips])
        for clip, right, wrong in zip(clips, heard, misheard, strict=True):
            true = clip.sounding_masks
            sounds = true.any((1, 2))
            intact += iou(right, true)[sounds].tolist()
            shuffled += iou(wrong, true)[sounds].tolist()
    return {
        "silence/mean_area": float(np.mean(areas)),
        "silence/empty_sentences": float(np.mean(empty)),
        "silence/num_frames": len(areas),
        "shuffled/iou_with_its_own_sound": float(np.mean(intact)),
        "shuffled/iou": float(np.mean(shuffled)),
        "shuffled/num_frames": len(shuffled),
    }


def measure_counterfactuals(listen: Listener, batches: Iterator[list[tuple[Clip, Clip]]]) -> dict:
    """How often the mask lies on the object that sounds, before and after the sound has moved to another."""
    right_before, right_after, with_new, with_old = [], [], [], []
    for batch in batches:
        pairs = [tuple(map(_as_recorded, pair)) for pair in batch]
        answers = [listen([pair[side] for pair in pairs])[0] for side in (0, 1)]
        for (before, after), masks_before, masks_after in zip(pairs, *answers, strict=True):
            old, new = _source(before), _source(after)
            at = old.sounding
            right_before += _is_right(masks_before[at], old.masks[at], new.masks[at]).tolist()
            right_after += _is_right(masks_after[at], new.masks[at], old.masks[at]).tolist()
            with_new += iou(masks_after, new.masks)[at].tolist()
            with_old += iou(masks_after, old.masks)[at].tolist()
    return {
        "counterfactual/moved": float(np.mean(right_after)),
        "counterfactual/right_before": float(np.mean(right_before)),
        "counterfactual/right_before_and_after": float(np.mean(np.logical_and(right_before, right_after))),
        "counterfactual/iou_with_the_object_that_sounds_now": float(np.mean(with_new)),
        "counterfactual/iou_with_the_object_that_sounded_before": float(np.mean(with_old)),
        "counterfactual/num_frames": len(right_after),
    }


def shuffle_seconds(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """The sound with its seconds in another order, none in its own place."""
    seconds = clip.sound.reshape(len(clip.frames), clip.sample_rate)
    while True:
        order = rng.permutation(len(seconds))
        if (order != np.arange(len(seconds))).all():
            return seconds[order].ravel()


def iou(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """float64 [t]: intersection over union of bool [t, y, x]; 0 where both are empty."""
    return (predicted & true).sum((1, 2)) / np.maximum((predicted | true).sum((1, 2)), 1)


def _is_right(predicted: np.ndarray, sounding: np.ndarray, other: np.ndarray) -> np.ndarray:
    hit = iou(predicted, sounding)
    return (hit > 0.5) & (hit > iou(predicted, other))


def _source(clip: Clip):
    (source,) = [item for item in clip.objects if item.sounding.any()]
    return source


def _with_sound(clip: Clip, sound: np.ndarray) -> Clip:
    return dataclasses.replace(clip, sound=sound)


def _as_recorded(clip: Clip) -> Clip:
    """With the pictures as JPEG leaves them."""
    return records.decode_clip(records.encode_clip(clip))


def _batches(items: Iterator, number: int, name: str) -> Iterator[list]:
    items = itertools.islice(tqdm.tqdm(items, desc=name, total=number, unit="clip", disable=None), number)
    while batch := list(itertools.islice(items, BATCH_SIZE)):
        yield batch


if __name__ == "__main__":
    sys.exit(main())
