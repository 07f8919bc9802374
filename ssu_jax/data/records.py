"""Clip <-> record: the one place that names the features of a record, and the check of a whole directory.

A record is a `tf.train.Example`. t frames, o objects, of which s have masks, all in the order of the clip:

    schema          int64 [1]      SCHEMA_VERSION; 1 had no `known` flags and no boxes, and is still read
    id, dataset, major, category   bytes [1] each, UTF-8
    frames          bytes [t]      JPEG, quality 95, no chroma subsampling
    frames/size     int64 [2]      rows, columns
    frames/times_us int64 [t]      microseconds
    frames/valid    int64 [t]      0 or 1
    frames/captions bytes [t]      UTF-8, empty in silence
    frames/masks_known, frames/captions_known, frames/sources_known   int64 [t] each, 0 or 1
    sound           bytes [1]      16-bit PCM, mono, little-endian
    sound/rate      int64 [1]      Hz
    objects/names   bytes [o]      class names
    objects/on_screen int64 [o]    0 or 1
    objects/sounding  int64 [o t]  0 or 1, object by object
    objects/has_masks int64 [o]    0 or 1
    masks           bytes [s t]    pycocotools' compressed run lengths, object by object
    objects/has_boxes int64 [o]    0 or 1; r objects have boxes
    boxes           float [r t 4]  left, top, right, bottom as shares of the frame, NaN in a frame without one
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ssu_jax.data import example, run_lengths, shards, transforms
from ssu_jax.data.source import JoinedSource, RecordSource
from ssu_jax.types import KNOWN_FLAGS, Clip, SoundObject, UserError

__all__ = [
    "RecordSource", "SCHEMA_VERSION", "decode_clip", "decode_labels", "decode_second", "encode_clip", "read", "verify",
    "write_split",
]  # fmt: skip

SCHEMA_VERSION = 2
PICTURES = "frames"  # the feature that holds JPEG
JPEG_QUALITY = 95
MAX_FRAME_PIXELS = 1 << 24  # what a record claims must fit into memory
MAX_CLIP_PIXELS = 1 << 30  # of all frames, or of all masks
# Type of the values, and their number where it is fixed.
SCHEMA = {
    "schema": (int, 1), "id": (bytes, 1), "dataset": (bytes, 1), "major": (bytes, 1), "category": (bytes, 1),
    "frames": (bytes, None), "frames/size": (int, 2), "frames/times_us": (int, None), "frames/valid": (int, None),
    "frames/captions": (bytes, None), "sound": (bytes, 1), "sound/rate": (int, 1), "objects/names": (bytes, None),
    "objects/on_screen": (int, None), "objects/sounding": (int, None), "objects/has_masks": (int, None),
    "masks": (bytes, None),
    **{f"frames/{name}": (int, None) for name in KNOWN_FLAGS}, "objects/has_boxes": (int, None), "boxes": (float, None),
}  # fmt: skip
_SINCE_2 = (*(f"frames/{name}" for name in KNOWN_FLAGS), "objects/has_boxes", "boxes")


def encode_clip(clip: Clip) -> bytes:
    """A clip as a record. Raises ValueError if its parts do not fit together."""
    t, y, x = clip.frames.shape[:3]
    for name, found in (
        ("frame_times", len(clip.frame_times)),
        ("valid", len(clip.valid)),
        ("captions", len(clip.captions)),
        *((name, len(getattr(clip, name))) for name in KNOWN_FLAGS),
    ):
        if found != t:
            raise ValueError(f"clip {clip.id}: {t} frames but {found} {name}")
    if clip.frames.dtype != np.uint8 or clip.sound.dtype != np.int16:
        raise ValueError(
            f"clip {clip.id}: wanted uint8 frames and int16 sound, got {clip.frames.dtype}, {clip.sound.dtype}"
        )
    masked = [item.masks for item in clip.objects if item.masks is not None]
    for item in clip.objects:
        if item.sounding.shape != (t,) or (item.masks is not None and item.masks.shape != (t, y, x)):
            raise ValueError(f"clip {clip.id}: masks or flags of {item.name} do not fit {t} frames of {y} x {x}")
        if item.boxes is not None and item.boxes.shape != (t, 4):
            raise ValueError(f"clip {clip.id}: boxes of {item.name} do not fit {t} frames, one a frame or NaN")
        if item.boxes is not None:
            _checked_boxes(item.name, item.boxes, f"clip {clip.id}: ")
    return example.pack({
        "schema": [SCHEMA_VERSION],
        "id": [clip.id.encode()],
        "dataset": [clip.dataset.encode()],
        "major": [clip.major.encode()],
        "category": [clip.category.encode()],
        "frames": [_to_jpeg(frame) for frame in clip.frames],
        "frames/size": [y, x],
        "frames/times_us": [round(seconds * 1e6) for seconds in clip.frame_times.tolist()],
        "frames/valid": clip.valid.astype(int).tolist(),
        "frames/captions": [caption.encode() for caption in clip.captions],
        "sound": [clip.sound.astype("<i2").tobytes()],
        "sound/rate": [int(clip.sample_rate)],
        "objects/names": [item.name.encode() for item in clip.objects],
        "objects/on_screen": [int(item.on_screen) for item in clip.objects],
        "objects/sounding": [int(flag) for item in clip.objects for flag in item.sounding],
        "objects/has_masks": [int(item.masks is not None) for item in clip.objects],
        "masks": [counts for masks in masked for counts in run_lengths.encode(masks)],
        **{f"frames/{name}": getattr(clip, name).astype(int).tolist() for name in KNOWN_FLAGS},
        "objects/has_boxes": [int(item.boxes is not None) for item in clip.objects],
        "boxes": [float(edge) for item in clip.objects if item.boxes is not None for edge in item.boxes.flat],
    }, {name: kind for name, (kind, _) in SCHEMA.items()})  # fmt: skip


def decode_clip(record: bytes, choose: Callable[[int], tuple[int, int]] | None = None) -> Clip:
    """The inverse of `encode_clip`, up to JPEG. Raises ValueError if the record is not a clip.

    choose: number of frames -> (start, seconds) of a `transforms.stretch`, outside of which no picture is decoded.
    """
    features = _features(record)
    labels = _labels(features, with_masks=True)
    clip = dataclasses.replace(labels, sound=np.frombuffer(features["sound"][0], "<i2"))
    jpegs, (rows, columns) = features["frames"], _size(features)
    if choose is not None:
        start, seconds = choose(len(jpegs))
        clip, jpegs = transforms.stretch(clip, start, seconds), jpegs[start : start + seconds]
    frames = np.empty((len(jpegs), rows, columns, 3), np.uint8)
    for frame, jpeg in zip(frames, jpegs, strict=True):
        frame[:] = _from_jpeg(jpeg, rows, columns)
    return dataclasses.replace(clip, frames=frames)


def decode_second(record: bytes, second: int) -> Clip:
    """One second of a clip, as `transforms.stretch` would leave it, but with the sound of all its seconds."""
    features = _features(record)
    clip = transforms.stretch(_labels(features, with_masks=True), second, 1)
    frame = _from_jpeg(features["frames"][second], *_size(features))
    return dataclasses.replace(clip, frames=frame[None], sound=np.frombuffer(features["sound"][0], "<i2"))


def decode_labels(record: bytes, with_masks: bool = False) -> Clip:
    """The same clip with no frames (uint8 [t, y, x, 0]) and no sound, many times faster: captions, objects, flags.

    `with_masks` decodes the masks too, so that `sounding_masks` holds; otherwise every object's masks are None.
    """
    return _labels(_features(record), with_masks)


def read(source: RecordSource | JoinedSource, number: int, decode: Callable[..., Any] = decode_clip, **options) -> Any:
    """Record `number` by one of the decoders here. Raises UserError (78) if the record is damaged."""
    record = source[number]
    try:
        return decode(record, **options)
    except ValueError as error:
        raise UserError(
            f"{source.directory}, split {source.split}: record {number} cannot be used: {error}", 78
        ) from None


def write_split(
    directory: str | os.PathLike,
    split: str,
    clips: Iterable[Clip | bytes],
    num_shards: int,
    *,
    classes: Sequence[str],
    source: dict,
    file_format: str = "tfrecord",
    overwrite: bool = False,
) -> dict:
    """Writes clips, or records already encoded (by a pool, say), as a split; returns its manifest.

    `classes` are the class names of the data set, `source` is what made it (options, seed, versions), JSON-able.
    Raises UserError as `shards.write_shards`.
    """
    records = (clip if isinstance(clip, bytes) else encode_clip(clip) for clip in clips)
    return shards.write_shards(
        directory, split, records, num_shards,
        facts=facts_of(classes, source), file_format=file_format, overwrite=overwrite,
    )  # fmt: skip


def facts_of(classes: Sequence[str], source: dict) -> dict:
    """What the manifest of a split says beside its shards."""
    return {"schema_version": SCHEMA_VERSION, "classes": list(classes), "source": source}


def verify(directory: str | os.PathLike, progress: Callable[[str], None] = lambda line: None) -> list[str]:
    """One line for each fault of any split, with file and record number; empty when all is well.

    Compares every checksum and count, and decodes every record whole. `progress` is told each split's name.
    Raises UserError (exit code 2) if there is no such directory or it holds no records.
    """
    splits = shards.splits_of(directory)
    if not splits:
        raise UserError(f"{directory} holds no records: make some with `ssu prepare`, or name another directory")
    faults = [f"{path}: its split has no manifest" for path in shards.strays_of(directory)]
    for split in splits:
        progress(split)
        try:
            manifest = shards.read_manifest(directory, split)
        except UserError as error:
            faults.append(str(error))
            continue
        faults += shards.faults_of(directory, manifest, _Check(manifest["classes"]))
    return faults


class _Check:
    """Says what is wrong with a record that its checksums let pass; remembers the ids of its split."""

    def __init__(self, classes: Sequence[str]):
        self.classes, self.ids = set(classes), set()

    def __call__(self, record: bytes) -> str:
        try:
            clip = decode_clip(record)
        except (ValueError, TypeError, IndexError, OSError) as error:
            return f"cannot be decoded: {error}"
        unknown = sorted({item.name for item in clip.objects} - self.classes)
        if unknown:
            return f"holds the class {unknown[0]!r}, which the manifest does not name"
        if clip.id in self.ids:
            return f"has the id {clip.id!r} of an earlier record"
        self.ids.add(clip.id)
        return ""


def _features(record: bytes) -> dict:
    features = example.unpack(record)
    version = next(iter(features.get("schema", ())), None)
    if version == 1:
        t, o = len(features.get("frames", ())), len(features.get("objects/names", ()))
        features |= {name: [1] * t for name in _SINCE_2[:3]} | {"objects/has_boxes": [0] * o, "boxes": []}
    elif version != SCHEMA_VERSION:
        raise ValueError(f"record schema {version}, this version of ssu_jax reads 1 to {SCHEMA_VERSION}")
    missing = [name for name in SCHEMA if name not in features]
    if missing:
        raise ValueError(f"the record lacks {', '.join(missing)}")
    for name, (kind, count) in SCHEMA.items():
        values = features[name]
        if (len(values) and not isinstance(values[0], kind)) or (count is not None and len(values) != count):
            raise ValueError(f"{name} must be {count or 'a list of'} {kind.__name__}")
    if features["sound/rate"][0] < 1:
        raise ValueError(f"sound/rate is {features['sound/rate'][0]} Hz")
    return features


def _labels(features: dict, with_masks: bool) -> Clip:
    t = len(features["frames"])
    rows, columns = _size(features)
    a_frame = ("times_us", "valid", "captions", *KNOWN_FLAGS)
    lengths = {name: len(features[f"frames/{name}"]) for name in a_frame}
    if set(lengths.values()) != {t}:
        raise ValueError(f"the record holds {t} frames but {lengths}")
    return Clip(
        id=features["id"][0].decode(),
        frames=np.empty((t, rows, columns, 0), np.uint8),
        frame_times=np.array(features["frames/times_us"]) / 1e6,
        sound=np.empty(0, np.int16),
        sample_rate=features["sound/rate"][0],
        valid=np.array(features["frames/valid"], bool),
        captions=tuple(caption.decode() for caption in features["frames/captions"]),
        objects=_objects(features, t, rows, columns, with_masks),
        dataset=features["dataset"][0].decode(),
        major=features["major"][0].decode(),
        category=features["category"][0].decode(),
        **{name: np.array(features[f"frames/{name}"], bool) for name in KNOWN_FLAGS},
    )


def _objects(features: dict, t: int, rows: int, columns: int, with_masks: bool) -> tuple[SoundObject, ...]:
    names, *flags = (features["objects/" + name] for name in ("names", "on_screen", "has_masks", "has_boxes"))
    on_screen, has_masks, has_boxes = flags
    sounding = np.array(features["objects/sounding"], bool)
    if any(len(flag) != len(names) for flag in flags) or len(sounding) != len(names) * t:
        raise ValueError("the flags of the objects do not fit their number")
    if len(features["masks"]) != sum(has_masks) * t:
        raise ValueError("the masks do not fit the objects and frames")
    if len(features["boxes"]) != sum(has_boxes) * t * 4:
        raise ValueError("the boxes do not fit the objects and frames")
    boxes = iter(np.array(features["boxes"], np.float32).reshape(-1, t, 4))
    masks = iter(())
    if with_masks and len(features["masks"]):
        masks = iter(run_lengths.decode(features["masks"], rows, columns).reshape(-1, t, rows, columns))
    return tuple(
        SoundObject(
            name.decode(),
            heard,
            bool(seen),
            next(masks) if with_masks and masked else None,
            _checked_boxes(name.decode(), next(boxes)) if boxed else None,
        )
        for name, heard, seen, masked, boxed in zip(names, sounding.reshape(len(names), t), *flags, strict=True)
    )


def _checked_boxes(name: str, boxes: np.ndarray, where: str = "") -> np.ndarray:
    """The boxes. Raises ValueError for one that is turned over, or leaves the frame; NaN is none."""
    left, top, right, bottom = boxes.T
    wrong = ~np.isnan(boxes).any(1) & ~(
        (left >= 0) & (left <= right) & (right <= 1) & (top >= 0) & (top <= bottom) & (bottom <= 1)
    )
    if wrong.any():
        second = int(wrong.argmax())
        edges = ", ".join(f"{edge:.4g}" for edge in boxes[second])
        raise ValueError(
            f"{where}the box of {name!r} in second {second} is {edges}: left, top, right, bottom must lie in the "
            "frame, 0 to 1"
        )
    return boxes


def _size(features: dict) -> tuple[int, int]:
    rows, columns = features["frames/size"]
    pictures = max(len(features["frames"]), len(features["masks"]), 1)
    if min(rows, columns) < 1 or rows * columns > min(MAX_FRAME_PIXELS, MAX_CLIP_PIXELS // pictures):
        raise ValueError(f"{pictures} frames or masks of {rows} x {columns} pixels are none, or too much to decode")
    return rows, columns


def _to_jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _from_jpeg(jpeg: bytes, rows: int, columns: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            # Compared before anything is decoded: the header may claim any size.
            if image.size != (columns, rows) or image.mode != "RGB":
                raise ValueError(
                    f"a frame is {image.mode} {image.size[1]} x {image.size[0]}, not RGB {rows} x {columns}"
                )
            return np.asarray(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"a frame claims to be far larger than {rows} x {columns}") from error
    except OSError as error:
        raise ValueError("a frame is no whole JPEG") from error
