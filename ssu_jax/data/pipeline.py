"""Records -> batches, in an order that depends on (seed, step) alone.

Position p of training, p = step * batch_size + row, is the record that order.py gives, changed by draws keyed with
(seed, p). Nothing is carried from step to step, so a run can begin at any step, with any number of
reader processes, and see the same batches. Each of several hosts makes only its own rows of every batch, and
together they make the same batches as one. execution.py carries the order out.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssu_jax.config import Config
from ssu_jax.config.data import DataConfig
from ssu_jax.data import audio, execution, records, shards, transforms
from ssu_jax.data.order import Order, draws
from ssu_jax.data.source import JoinedSource, RecordSource
from ssu_jax.tokenizer import PAD, Tokenizer
from ssu_jax.types import KNOWN_FLAGS, Batch, Clip, UserError

ClipIds = Callable[[Sequence[str]], np.ndarray]  # sentences -> int32 [n, 77]


def train_batches(
    config: Config,
    tokenizer: Tokenizer | None,
    start_step: int = 0,
    clip_ids: ClipIds | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Batches of the training split from `start_step` on, without end; NumPy arrays, shapes in types.Batch.

    rows: those of every batch that are made, all by default.
    clip_ids: sentences -> ids of CLIP's text tower, where the loss compares in its space.
    Raises UserError: no such split, a class that the config does not name, fewer records than 1, a damaged
    record (exit code 78). The first error ends the iteration.
    """
    data = config.data
    source = open_source(data.dir, data.train_split, data, verify=data.verify_shards)
    example = _TrainingExample(source, data, tokenizer, config.train.seed, clip_ids)
    return execution.run_rows(example, config.train.batch_size, rows, start_step, data.num_workers)


def eval_batches(
    config: Config,
    tokenizer: Tokenizer | None,
    split: str,
    batch_size: int,
    num_clips: int = 0,
    directory: str | None = None,
) -> Iterator[Batch]:
    """The first `num_clips` records (0: all) in their order, unchanged. The last batch is filled up with
    examples whose record is -1 and whose frames are not valid.
    """
    data = config.data
    source = open_source(directory or data.dir, split, data)
    count = min(num_clips or len(source), len(source))
    make = _EvaluationExample(source, data, tokenizer, count)
    return execution.run(make, batch_size, 0, -(-count // batch_size), 0)


def open_source(directory: str, split: str, data: DataConfig, verify: bool = False) -> RecordSource | JoinedSource:
    """The records of a split, its classes checked against the config; `verify` compares its files' sha256.

    Of several directories (separated by commas) all must hold the training split, and at least one any other.
    Raises UserError.
    """
    if not directory:
        raise UserError("no directory of records: name one with --config.data.dir=DIR (`ssu prepare` makes records)")
    directories = _directories(directory)
    if split != data.train_split:
        directories = [place for place in directories if split in shards.splits_of(place)] or directories
    sources = [RecordSource(place, split, verify) for place in directories]
    source = sources[0] if len(sources) == 1 else JoinedSource(sources)
    if not len(source):
        raise UserError(f"the split {split!r} in {directory} holds no records: make some with `ssu prepare`")
    unknown = sorted(set(source.manifest["classes"]) - set(data.classes))
    if unknown and data.other_classes == "refused":
        raise UserError(
            f"{directory}: the records hold the class {unknown[0]!r}, which config.data.classes does not name: "
            "use the classes of the manifest, in one order for training and evaluation"
        )
    return source


def training_order(source: RecordSource | JoinedSource, data: DataConfig, seed: int) -> Order:
    """Which record each position of training begins with. Raises UserError unless every directory has its weight."""
    if data.weights and len(data.weights) != len(source.lengths):
        raise UserError(
            f"config.data.weights holds {len(data.weights)} numbers, config.data.dir {len(source.lengths)} "
            "directories: give one weight a directory, or none"
        )
    return Order(seed, source.lengths, data.weights)


def has_split(directory: str, split: str) -> bool:
    """Whether a directory, or one of several (separated by commas), holds a split. Raises UserError: no directory."""
    return any(split in shards.splits_of(place) for place in _directories(directory))


def _directories(text: str) -> list[str]:
    return [text] if os.path.isdir(text) else [part.strip() for part in text.split(",")]


def clip_to_example(
    clip: Clip, data: DataConfig, tokenizer: Tokenizer | None, record: int = -1, clip_ids: ClipIds | None = None
) -> Batch:
    """A clip as one row of a batch: cut or padded to num_frames, resized, its labels as arrays.

    tokenizer: None leaves text_ids empty, all [PAD]. clip_ids: sentences -> ids of CLIP's text tower, where the loss
    compares in its space. Raises UserError for a class that `data.classes` does not name.
    """
    t, size = data.num_frames, data.image_size
    frames = clip.frames[:t]
    if frames.shape[1:3] != (size, size):
        frames = transforms.resize_frames(frames, size, size)
    valid = np.zeros(t, bool)
    valid[: len(frames)] = clip.valid[:t]
    captions = (*clip.captions[:t], *[""] * (t - len(frames)))
    return Batch(
        frames=_padded(frames, t),
        log_mel=audio.second_patches(
            audio.to_float(clip.sound, clip.sample_rate, data.sample_rate), data.sample_rate, t, data.log_offset
        ),
        frame_valid=valid,
        text_ids=_text_ids(captions, tokenizer, data.max_text_tokens),
        scene_label=np.int32(data.classes.index(clip.category) if clip.category in data.classes else -1),
        record=np.int32(record),
        clip_text_ids=clip_ids(captions) if clip_ids else np.zeros((t, 0), np.int32),
        **_labels(clip, data, valid),
    )


def _text_ids(captions: Sequence[str], tokenizer: Tokenizer | None, length: int) -> np.ndarray:
    if tokenizer is None:
        return np.full((len(captions), length), PAD, np.int32)
    return np.stack([tokenizer.encode(caption, length) for caption in captions])


class _TrainingExample:
    """Position -> example, for one process after another: picklable, no state."""

    def __init__(
        self,
        source: RecordSource | JoinedSource,
        data: DataConfig,
        tokenizer: Tokenizer | None,
        seed: int,
        clip_ids: ClipIds | None = None,
    ):
        seconds = min(data.train_seconds or data.num_frames, data.num_frames)
        self.data = dataclasses.replace(data, num_frames=seconds)
        self.source, self.tokenizer, self.seed, self.clip_ids = source, tokenizer, seed, clip_ids
        self.order = training_order(source, data, seed)

    def __call__(self, position: int) -> Batch:
        number = self.order(position)
        rng, seconds = draws(self.seed, position), self.data.num_frames

        def choose(t: int) -> tuple[int, int]:
            return int(rng.integers(max(t - seconds, 0) + 1)), seconds

        clip = records.read(self.source, number, choose=choose)
        clip = transforms.augment(clip, self.data.augment, rng)
        return clip_to_example(clip, self.data, self.tokenizer, number, self.clip_ids)


class _EvaluationExample:
    def __init__(self, source: RecordSource | JoinedSource, data: DataConfig, tokenizer: Tokenizer | None, count: int):
        self.source, self.data, self.tokenizer, self.count = source, data, tokenizer, count

    def __call__(self, position: int) -> Batch:
        if position < self.count:
            return clip_to_example(records.read(self.source, position), self.data, self.tokenizer, position)
        filler = clip_to_example(records.read(self.source, 0), self.data, self.tokenizer)
        nothing = np.zeros_like(filler.frame_valid)
        return filler._replace(frame_valid=nothing, mask_known=nothing, text_known=nothing, source_known=nothing)


def _labels(clip: Clip, data: DataConfig, valid: np.ndarray) -> dict[str, np.ndarray]:
    t, size = data.num_frames, data.image_size
    masks, semantic = np.zeros((t, size, size), bool), np.zeros((t, size, size), np.int8)
    sources, audible = np.zeros((2, t, len(data.classes)), np.uint8)
    masks_known, text_known, source_known = (_padded(getattr(clip, name)[:t], t) & valid for name in KNOWN_FLAGS)
    semantic[np.flatnonzero(~clip.masks_known[:t])] = -1
    for item in clip.objects:
        label = class_number(item.name, data)
        sounding = _padded(item.sounding[:t], t)
        audible[:, label] |= sounding
        if not item.on_screen:
            continue
        sources[:, label] |= sounding
        if item.masks is None:
            semantic[:] = -1  # it is somewhere in the picture
            masks_known = masks_known & ~(sounding & source_known)
            continue
        seen = item.masks[:t]
        if seen.shape[1:] != (size, size):
            seen = transforms.resize_masks(seen, size, size)
        seen = np.ascontiguousarray(_padded(seen, t))
        masks |= (seen.reshape(t, -1) & sounding[:, None]).reshape(masks.shape)
        np.copyto(semantic, label + 1, where=seen & (semantic >= 0))
    return {
        "masks": masks.view(np.uint8),
        "semantic": semantic,
        "source_labels": sources,
        "audible_labels": audible,
        "mask_known": masks_known,
        "text_known": text_known,
        "source_known": source_known,
    }


def class_number(name: str, data: DataConfig) -> int:
    """The label of a record's class. Raises UserError where the config does not name it."""
    try:
        return data.classes.index(name)
    except ValueError:
        raise UserError(f"a record holds the class {name!r}, which config.data.classes does not name: add it") from None


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the end of the first axis."""
    if len(values) == length:
        return values
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])
