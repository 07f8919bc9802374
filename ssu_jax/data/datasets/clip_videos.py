"""Clips that are seconds of a video file: how many a file holds, what is wrong with it, and one of them read."""

import concurrent.futures
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssu_jax.data import media, video
from ssu_jax.data.datasets.layout import Item, Layout, Reading
from ssu_jax.data.survey import declared_seconds, glance
from ssu_jax.types import Clip, UserError

CLIP_SECONDS = 10
# The endings of the containers that data/media.py opens.
ENDINGS = frozenset(
    ".mp4 .m4v .mov .qt .3gp .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .vob .flv .ogv .ogg .wmv .asf .gif".split()
)
# A tail shorter than this is no clip: seconds of pictures count from their half on.
_LEAST_SECONDS = 0.5
_THREADS = 16  # that wait for the headers of many files


@dataclasses.dataclass(frozen=True)
class Piece:
    """Which seconds of its file a clip is, and its class names where they are known."""

    start: float = 0.0
    seconds: int = CLIP_SECONDS
    names: tuple[str, ...] = ()


class VideoLayout(Layout):
    """What layouts share whose items are a video, and a Piece of it."""

    def faults(self, item: Item) -> list[str]:
        return told(lambda: check_inside(self.folder, item.files)) or told(lambda: check_video(item.files[0]))

    def read(self, item: Item, moments: Sequence[float] | None = None) -> Clip:
        """The clip without annotation, as `read_clip`, from within the folder of the set."""
        check_inside(self.folder, item.files)
        return read_clip(item, self.name, self.reading, moments)[0]

    @property
    def folder(self) -> pathlib.Path:
        return self.source


def starts_of(paths: Sequence[pathlib.Path]) -> list[list[float]]:
    """Of each file, where its clips of 10 seconds begin, one after another, by the length that its header declares.

    A file that cannot be opened counts as one clip, so that it is missed by name and not left out.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(_starts, paths))


def check_video(path: pathlib.Path) -> None:
    """Raises UserError for what is wrong with a video by its header."""
    with media.open_media(path) as container:
        media.video_stream(container)
        _check_has_sound(path, media.sound_stream(container) is not None)
        is_mp4 = "mp4" in container.format.name
    if is_mp4 and media.mp4_is_cut(path):
        raise UserError(f"{path}: truncated: get the whole file again")


def check_sound(path: pathlib.Path) -> None:
    """The same of a sound file."""
    with media.open_sound(path):
        pass


def told(check: Callable[[], Any]) -> list[str]:
    """What a check raises, as a list of one line; empty if all is well."""
    try:
        check()
    except UserError as error:
        return [str(error)]
    return []


def videos_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every video below a folder by its name without ending; of several with one name the first in order of paths.

    Raises UserError for a folder that is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: check --source")
    found = {}
    for parent, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() in ENDINGS and not name.startswith("."):
                found.setdefault(stem, pathlib.Path(parent, name))
    return found


def check_inside(source: pathlib.Path, paths: Sequence[pathlib.Path]) -> None:
    """Raises UserError for a path that leaves the data set's folder through a link."""
    base = os.path.realpath(source)
    for path in paths:
        full = os.path.realpath(path)
        if os.path.commonpath([base, full]) != base:
            raise UserError(f"{path}: leads out of {source}: copy the file there instead of a link")


def read_clip(
    item: Item, dataset: str, reading: Reading, moments: Sequence[float] | None = None
) -> tuple[Clip, tuple[int, int]]:
    """A clip of which nothing is known but its pictures and sound, and the rows and columns of its video.

    item.files[0] is the video, item.facts a Piece or what has its `start` and `seconds`. moments: as of `excerpt`.
    """
    info = glance(item.files[0])
    _check_has_sound(info.path, info.channels > 0)
    start, seconds = item.facts.start, item.facts.seconds
    frames, sound = video.excerpt(info, start, seconds, reading.frame_size, reading.sample_rate, moments)
    t = len(frames)
    nothing = np.zeros(t, bool)
    clip = Clip(
        id=item.id,
        frames=frames,
        frame_times=np.arange(t) + (np.full(t, 0.5) if moments is None else np.array(moments[:t])),
        sound=sound,
        sample_rate=reading.sample_rate,
        valid=np.ones(t, bool),
        captions=("",) * t,
        dataset=dataset,
        masks_known=nothing,
        captions_known=nothing,
        sources_known=nothing,
    )
    return clip, (info.height, info.width)


def _check_has_sound(path: pathlib.Path, has_sound: bool) -> None:
    """A download that lost its sound would be taken for silence."""
    if not has_sound:
        raise UserError(f"{path}: holds no sound that can be read: get the file again, or leave it out")


def _starts(path: pathlib.Path) -> list[float]:
    try:
        seconds = declared_seconds(path)
    except UserError:
        return [0.0]
    count = math.ceil((seconds - _LEAST_SECONDS) / CLIP_SECONDS)
    return [float(CLIP_SECONDS * number) for number in range(max(1, count))]
