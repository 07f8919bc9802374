"""Clips of a split as pictures to look at and videos to listen to."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ssu_jax import files
from ssu_jax.data import audio, records
from ssu_jax.types import Clip
from ssu_jax.visualization import clip_sheet, writer

_HEARD_RATE = 16000  # Hz, of a video whose sound has a rate that AAC has no number for


def show(source: records.RecordSource, numbers: Sequence[int], folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes FOLDER/<split>-000012.png and .mp4 for every number; returns their paths.

    All of them appear or none. Raises UserError for a damaged record (exit code 78) and a place that cannot be written.
    """
    folder = pathlib.Path(folder)
    colours = clip_sheet.class_colours(source.manifest["classes"])
    clips = {number: records.read(source, number) for number in numbers}
    with contextlib.ExitStack() as stack:
        written = []
        for number, clip in clips.items():
            name = f"{source.split}-{number:06d}"
            written += [folder / f"{name}.png", folder / f"{name}.mp4"]
            picture, video = (stack.enter_context(files.atomic_path(path)) for path in written[-2:])
            title = f"{clip.id} · {source.directory}, split {source.split}, record {number}"
            Image.fromarray(clip_sheet.page(clip, title, colours)).save(picture)
            writer.write_preview(video, [_audible(clip)])
    return written


def _audible(clip: Clip) -> Clip:
    if clip.sample_rate in writer.AAC_RATES:
        return clip
    sound = audio.to_float(clip.sound, clip.sample_rate, _HEARD_RATE) * 32768
    sound = np.clip(np.rint(sound), -32768, 32767).astype(np.int16)
    return dataclasses.replace(clip, sound=sound, sample_rate=_HEARD_RATE)
