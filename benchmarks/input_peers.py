"""The same records read by others: Grain's TFRecord reader, tf.data and torch's DataLoader. For input_pipeline.py.

Each gives frames, masks, log-mel patches and validity as our batches hold them. Two forms of each of the two:

* `equal`   what has no exact counterpart there runs through our own NumPy functions (log-mel in float64, run lengths,
            the antialiased resize); reading, the protocol buffer, JPEG and batching are theirs (torch: Pillow's JPEG)
* `own`     log-mel by tf.signal or torch.stft in float64, resize by tf.image or torch, masks by pycocotools
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

FIELDS = ("frames", "masks", "log_mel", "frame_valid")  # what is compared
LABELS = ("masks", "objects/sounding", "objects/on_screen", "objects/has_masks")


def grain_records(path: str) -> Iterator[bytes]:
    """Grain's own sequential reader, which compares no checksum."""
    import grain

    return iter(grain.experimental.TFRecordIterDataset(path))


def union_of_masks(labels: Sequence, size: tuple[int, int], decode: Callable) -> np.ndarray:
    """uint8 [t, y, x] of a record's flat lists LABELS; decode: compressed run lengths -> bool [masks, y, x]."""
    counts, sounding, on_screen, has_masks = labels
    rows, columns = size
    sounding = np.asarray(sounding, bool).reshape(len(on_screen), -1)
    union = np.zeros((sounding.shape[1], rows, columns), bool)
    masked = [flags for flags, seen, has in zip(sounding, on_screen, has_masks, strict=True) if has]
    if masked:
        for flags, masks in zip(masked, decode(counts, rows, columns).reshape(len(masked), *union.shape), strict=True):
            union |= masks & flags[:, None, None]
    return union.astype(np.uint8)


def coco_decode(counts, rows: int, columns: int) -> np.ndarray:
    """pycocotools' decoder, which trusts its input."""
    from pycocotools import mask as coco

    return coco.decode([{"size": [rows, columns], "counts": item} for item in counts]).transpose(2, 0, 1).astype(bool)


def patches_of(pcm: np.ndarray, rate: int, data) -> np.ndarray:
    """Our log-mel patches."""
    from ssu_jax.data import audio

    sound = audio.to_float(pcm, rate, data.sample_rate)
    return audio.second_patches(sound, data.sample_rate, data.num_frames, data.log_offset)


def resized(frames: np.ndarray, masks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """By our functions, where the size is another one."""
    from ssu_jax.data import transforms

    if frames.shape[1:3] == (size, size):
        return frames, masks
    return transforms.resize_frames(frames, size, size), transforms.resize_masks(masks > 0, size, size).astype(np.uint8)


class TensorFlowData:
    """tf.data with as many threads as there are cores; the calls of `map` are as parallel as it thinks best."""

    def __init__(self, path: str, data, batch_size: int):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        self.tf, self.path, self.data, self.batch_size = tf, path, data, batch_size
        self.cores = len(os.sched_getaffinity(0))
        tf.config.threading.set_intra_op_parallelism_threads(self.cores)
        tf.config.threading.set_inter_op_parallelism_threads(self.cores)

    def records(self) -> Iterator[bytes]:
        return self._limited(self._read()).as_numpy_iterator()

    def decoded(self) -> Callable[[], Iterator]:
        dataset = self._limited(self._read().map(self._decode, num_parallel_calls=self.tf.data.AUTOTUNE))
        return lambda: iter(dataset.as_numpy_iterator())

    def batches(self, own: bool) -> Callable[[], Iterator[dict]]:
        def example(record):
            return self._example(self._decode(record), own)

        dataset = self._read().map(example, num_parallel_calls=self.tf.data.AUTOTUNE)
        dataset = self._limited(dataset.batch(self.batch_size).prefetch(self.tf.data.AUTOTUNE))
        return lambda: iter(dataset.as_numpy_iterator())

    def _read(self):
        return self.tf.data.TFRecordDataset(self.path, buffer_size=8 << 20)

    def _limited(self, dataset):
        options = self.tf.data.Options()
        options.threading.private_threadpool_size = self.cores
        return dataset.with_options(options)

    def _decode(self, record) -> dict[str, Any]:
        tf, t = self.tf, self.data.num_frames
        many = tf.io.FixedLenSequenceFeature
        found = tf.io.parse_single_example(record, {
            "frames": tf.io.FixedLenFeature([t], tf.string), "sound": tf.io.FixedLenFeature([], tf.string),
            "sound/rate": tf.io.FixedLenFeature([], tf.int64), "frames/valid": tf.io.FixedLenFeature([t], tf.int64),
            "frames/size": tf.io.FixedLenFeature([2], tf.int64),
            "masks": many([], tf.string, allow_missing=True),
            **{name: many([], tf.int64, allow_missing=True) for name in LABELS[1:]},
        })  # fmt: skip
        # INTEGER_ACCURATE is what libjpeg, and so Pillow, does by default; tf.io's default is faster and differs.
        jpegs = [tf.io.decode_jpeg(found["frames"][i], channels=3, dct_method="INTEGER_ACCURATE") for i in range(t)]
        masks = tf.numpy_function(self._masks, [*(found[name] for name in LABELS), found["frames/size"]], tf.uint8)
        return {
            "frames": tf.stack(jpegs),
            "masks": masks,
            "sound": tf.io.decode_raw(found["sound"], tf.int16),
            "rate": found["sound/rate"],
            "frame_valid": found["frames/valid"] > 0,
        }

    @staticmethod
    def _masks(counts, sounding, on_screen, has_masks, size) -> np.ndarray:
        from ssu_jax.data import run_lengths

        labels = (list(counts), sounding, on_screen, has_masks)
        return union_of_masks(labels, tuple(size.tolist()), run_lengths.decode)

    def _example(self, clip: dict[str, Any], own: bool) -> dict[str, Any]:
        tf, t, size = self.tf, self.data.num_frames, self.data.image_size
        frames, masks = clip["frames"], clip["masks"]
        if own:
            frames = tf.image.resize(frames, (size, size), antialias=True)
            frames = tf.cast(tf.round(tf.clip_by_value(frames, 0, 255)), tf.uint8)
            masks = tf.image.resize(tf.ensure_shape(masks, (t, None, None))[..., None], (size, size), "nearest")[..., 0]
            patches = self._patches(clip["sound"])
        else:
            frames, masks = tf.numpy_function(lambda *two: resized(*two, size), [frames, masks], (tf.uint8, tf.uint8))
            patches = tf.numpy_function(
                lambda pcm, rate: patches_of(pcm, int(rate), self.data), [clip["sound"], clip["rate"]], tf.float32
            )
        shaped = {"frames": (frames, (t, size, size, 3)), "masks": (masks, (t, size, size)),
                  "log_mel": (patches, (t, 96, 64))}  # fmt: skip
        return {name: tf.ensure_shape(*pair) for name, pair in shaped.items()} | {"frame_valid": clip["frame_valid"]}

    def _patches(self, pcm):
        """Sound at the wanted rate only."""
        tf, rate, t = self.tf, self.data.sample_rate, self.data.num_frames
        sound = tf.pad(tf.cast(pcm, tf.float64) / 32768, [[0, rate]])[: (t + 1) * rate]
        frames = tf.signal.stft(sound, rate // 40, rate // 100, 512, pad_end=False)
        mel = tf.linalg.matmul(tf.abs(frames), tf.constant(_mel_matrix(rate)))
        seconds = tf.reshape(mel[: 100 * t], (t, 100, 64))[:, :96]
        return tf.cast(tf.math.log(seconds + self.data.log_offset), tf.float32)


class TorchData:
    """A map-style data set over a shard whose frames were found beforehand, and torch's DataLoader."""

    def __init__(self, path: str, data, batch_size: int):
        import torch

        torch.set_num_threads(1)
        self.path, self.data, self.batch_size = path, data, batch_size
        self.spans = list(_spans(path))

    def records(self) -> Iterator[bytes]:
        return self._loader(_Records(self.path, self.spans))

    def decoded(self) -> Iterator[dict]:
        return self._loader(_Clips(self.path, self.spans))

    def batches(self, own: bool, num_workers: int = 0) -> Iterator[dict]:
        return self._loader(_Examples(self.path, self.spans, self.data, own), self.batch_size, num_workers)

    @staticmethod
    def _loader(dataset, batch_size: int | None = None, num_workers: int = 0) -> Iterator:
        import torch

        return iter(torch.utils.data.DataLoader(dataset, batch_size=batch_size, num_workers=num_workers))


class _Records:
    def __init__(self, path: str, spans: list[tuple[int, int]]):
        self.path, self.spans, self.descriptor = path, spans, None

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, number: int) -> bytes:
        if self.descriptor is None:  # each worker opens the file for itself
            self.descriptor = os.open(self.path, os.O_RDONLY)
        start, length = self.spans[number]
        return os.pread(self.descriptor, length, start)


class _Clips(_Records):
    own = False

    def __getitem__(self, number: int) -> dict[str, Any]:
        import io

        from PIL import Image

        from ssu_jax.data import example, run_lengths

        found = example.unpack(super().__getitem__(number))
        frames = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in found["frames"]])
        decode = coco_decode if self.own else run_lengths.decode
        masks = union_of_masks([found[name] for name in LABELS], tuple(found["frames/size"]), decode)
        return {"frames": frames, "masks": masks, "sound": np.frombuffer(found["sound"][0], "<i2").copy(),
                "rate": found["sound/rate"][0], "frame_valid": np.array(found["frames/valid"], bool)}  # fmt: skip


class _Examples(_Clips):
    def __init__(self, path: str, spans: list[tuple[int, int]], data, own: bool):
        super().__init__(path, spans)
        self.data, self.own = data, own

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        clip = super().__getitem__(number)
        if self.own:
            frames, masks, patches = self._own(clip)
        else:
            frames, masks = map(torch.from_numpy, resized(clip["frames"], clip["masks"], self.data.image_size))
            patches = torch.from_numpy(patches_of(clip["sound"], clip["rate"], self.data))
        return {
            "frames": frames,
            "masks": masks,
            "log_mel": patches,
            "frame_valid": torch.from_numpy(clip["frame_valid"]),
        }

    def _own(self, clip: dict[str, Any]):
        import torch
        from torch.nn import functional

        rate, t, size = self.data.sample_rate, self.data.num_frames, self.data.image_size
        frames, masks = torch.from_numpy(clip["frames"]), torch.from_numpy(clip["masks"])
        if frames.shape[1:3] != (size, size):
            frames = functional.interpolate(frames.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
            frames = frames.permute(0, 2, 3, 1).contiguous()
            masks = functional.interpolate(masks[:, None], (size, size), mode="nearest-exact")[:, 0]
        # torch.stft lays the window into the middle of the transform: the sound moves by what is before it.
        before = (512 - rate // 40) // 2
        sound = functional.pad(torch.from_numpy(clip["sound"]).double() / 32768, (before, rate))[: (t + 1) * rate]
        window = torch.hann_window(rate // 40, dtype=torch.float64)
        spectrum = torch.stft(sound, 512, rate // 100, rate // 40, window, center=False, return_complex=True).abs()
        mel = (torch.from_numpy(_mel_matrix(rate)).T @ spectrum).T
        seconds = mel[: 100 * t].reshape(t, 100, 64)[:, :96]
        return frames, masks, torch.log(seconds + self.data.log_offset).float()


def _mel_matrix(rate: int) -> np.ndarray:
    """float64 [257, 64]: our triangles as a dense matrix."""
    from ssu_jax.data import audio

    return np.ascontiguousarray(audio._mel_matrix(rate, 512).toarray().T)


def _spans(path: str) -> Iterator[tuple[int, int]]:
    """(start, length) of the bytes of every record of a TFRecord file."""
    place, size = 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            length = int.from_bytes(file.read(8), "little")
            yield place + 12, length
            place += length + 16


def first(iterator: Iterator[Any], count: int) -> list[Any]:
    """The first items."""
    return list(itertools.islice(iterator, count))
