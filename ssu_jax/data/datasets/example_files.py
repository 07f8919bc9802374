"""Small files of every kind that a data set comes with, made from clips of the built-in world."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from ssu_jax import files
from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data import synthetic
from ssu_jax.types import Clip

FRAMES_PER_SECOND = 2
_CLOCK = Fraction(1, 90_000)


def world(num_clips: int, seed: int) -> list[Clip]:
    """Clips of the world's training split."""
    return [synthetic.make_clip(seed, "train", index) for index in range(num_clips)]


def split_of(number: int) -> str:
    """Examples have all three splits from the third clip on."""
    return ("train", "val", "test")[number % 3]


def class_for(name: str, classes: Sequence[str]) -> str:
    """What an example calls a class of the world: the class with the same number, counted round."""
    return classes[SYNTHETIC_CLASSES.index(name) % len(classes)]


def category_for(clip: Clip, classes: Sequence[str]) -> str:
    """The class of an example's clip: of its category, or, where nothing sounds in view, of its first object."""
    return class_for(clip.category or clip.objects[0].name, classes)


def write_video(path: pathlib.Path, *clips: Clip) -> None:
    """The clips one after another as H.264 with AAC sound; each picture is shown for its whole second."""
    files.make_folder(path.parent)
    rate, (rows, columns) = clips[0].sample_rate, clips[0].frames.shape[1:3]
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        pictures.height, pictures.width, pictures.pix_fmt = rows, columns, "yuv420p"
        pictures.time_base = pictures.codec_context.time_base = _CLOCK
        pictures.options = {"crf": "4", "preset": "ultrafast", "threads": "1"}
        sounds = container.add_stream("aac", rate=rate, layout="mono")
        number = 0
        for clip in clips:
            for image in np.repeat(clip.frames, FRAMES_PER_SECOND, axis=0):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = round(number / FRAMES_PER_SECOND / _CLOCK), _CLOCK
                container.mux(pictures.encode(frame))
                number += 1
        container.mux(pictures.encode(None))
        sound = np.concatenate([clip.sound for clip in clips])
        for first in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, first : first + 1024], format="s16", layout="mono")
            block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), first
            container.mux(sounds.encode(block))
        container.mux(sounds.encode(None))


def write_wav(path: pathlib.Path, sound: np.ndarray, rate: int) -> None:
    """int16 [samples] as 16-bit PCM, or float32 as float PCM."""
    files.make_folder(path.parent)
    codec, kind = ("pcm_f32le", "flt") if sound.dtype == np.float32 else ("pcm_s16le", "s16")
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        block = av.AudioFrame.from_ndarray(sound[None], format=kind, layout="mono")
        block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))


def write_picture(path: pathlib.Path, picture: np.ndarray) -> None:
    """uint8 [y, x, 3], or bool [y, x] as 0 and 255. PNG or JPEG, by the name."""
    files.make_folder(path.parent)
    image = Image.fromarray(picture if picture.dtype == np.uint8 else picture.astype(np.uint8) * 255)
    image.save(path, **({"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}))


def write_table(path: pathlib.Path, columns: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    """CSV; without columns, without a first line that names them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([*([columns] if columns else []), *rows])
    files.atomic_write(path, text.getvalue())


def write_json(path: pathlib.Path, content: Any) -> None:
    files.atomic_write(path, json.dumps(content, indent=1))
