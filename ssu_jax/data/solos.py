"""What T-VSL is shown of a record: one second of it, in which k classes sound and are seen, and nothing else is heard.

k is 1 (a solo) but for records that are taken as they are. The picture is that of the second, squeezed to a square.
The sound is that around the middle of the second, for labels are of seconds; where none tell what sounds when, that
around the time of the picture (VGG-SS drew its boxes at 5.0 s: 5 seconds are then the middle of the clip, which the
public code takes). At the ends of a clip it is moved inward; of a clip that is shorter, its sound over and over.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ssu_jax.config.data import DataConfig
from ssu_jax.data import audio, transforms
from ssu_jax.data.pipeline import class_number
from ssu_jax.types import Clip, SoundObject


@dataclasses.dataclass(frozen=True)
class Moment:
    """A second of a clip that can be shown.

    names: classes that sound, all on screen.  seen: classes on screen, whether they sound or not.
    begin, end: seconds of the clip between which its sound lies.
    """

    second: int
    names: tuple[str, ...]
    seen: frozenset[str]
    begin: float
    end: float


class Piece(NamedTuple):
    """A square picture with its sound; k classes sound in it."""

    picture: UInt8[np.ndarray, "y x 3"]
    sound: Float[np.ndarray, "samples"]
    sources: tuple[int, ...]
    regions: Bool[np.ndarray, "k y x"]
    region_known: tuple[bool, ...]
    present: UInt8[np.ndarray, "u"]  # 1 for what is seen or heard


def moments(labels: Clip, count: int, seconds: int) -> list[Moment]:
    """The seconds of a clip in which exactly `count` classes sound, and are on screen.

    labels: as of records.decode_labels. Where it is known what sounds when, no other source sounds in any second that
    the sound of `seconds` touches. Where it is not (VGGSound, MUSIC, VGG-SS), the classes of the clip are taken to
    sound in the seconds that have boxes of all of them, or else in the middle one; in MUSIC's performances, in each.
    """
    total = int(labels.valid.sum())
    known = labels.sources_known[:total]
    if not known.any():
        return _untold(labels, total, count, seconds)
    seen = frozenset(item.name for item in labels.objects if item.on_screen)
    found = []
    for second in np.flatnonzero(known).tolist():
        names = tuple(dict.fromkeys(item.name for item in labels.objects if item.on_screen and item.sounding[second]))
        if len(names) != count:
            continue
        begin, end = _window(second + 0.5, total, seconds)
        touched = slice(math.floor(begin), math.ceil(end))
        heard = [item for item in labels.objects if item.sounding[touched].any()]
        if known[touched].all() and all(item.on_screen and item.name in names for item in heard):
            found.append(Moment(second, names, seen, begin, end))
    return found


def middle_one(found: list[Moment], labels: Clip) -> Moment | None:
    """The moment nearest to the middle of the clip, None of none."""
    middle = int(labels.valid.sum()) // 2
    return min(found, key=lambda moment: abs(moment.second - middle), default=None)


def excerpt(clip: Clip, moment: Moment, seconds: int) -> Clip:
    """A clip of records.decode_second with the sound of the moment alone, `seconds` long, and no sentence.

    A sentence would forbid changes of the picture that matter to no one here.
    """
    start = round(moment.begin * clip.sample_rate)
    sound = clip.sound[start : round(moment.end * clip.sample_rate)]
    return dataclasses.replace(clip, sound=np.resize(sound, seconds * clip.sample_rate), captions=())


def read_as_released(clip: Clip) -> Clip:
    """MUSIC's boxes (left, top, width, height in its lists) taken for corners, as the public code does."""

    def misread(item: SoundObject) -> SoundObject:
        if item.boxes is None:
            return item
        left, top, right, bottom = item.boxes.T
        return dataclasses.replace(item, boxes=np.stack([left, top, right - left, bottom - top], axis=1))

    if clip.dataset != "music":
        return clip
    return dataclasses.replace(clip, objects=tuple(map(misread, clip.objects)))


def still_seen(clip: Clip) -> bool:
    """Whether all that sounds in the second at hand is (still) on screen."""
    return all(item.on_screen for item in clip.objects if item.sounding[0])


def piece(clip: Clip, names: tuple[str, ...], data: DataConfig) -> Piece | None:
    """A clip of one second as a piece; None if one of its sources has a mask without a pixel (it is hidden).

    Raises UserError for a class that `data.classes` does not name.
    """
    size, frames = data.image_size, clip.frames
    if frames.shape[1:3] != (size, size):
        frames = transforms.resize_frames(frames, size, size)
    regions, known = zip(*(_region(clip, name, size) for name in names), strict=True)
    if any(one is None for one in regions):
        return None
    present = np.zeros(len(data.classes), np.uint8)
    for item in clip.objects:
        if data.other_classes == "passed_over" and item.name not in data.classes:
            continue
        seen = item.on_screen and (item.masks is None or item.masks.any())
        present[class_number(item.name, data)] |= bool(seen or item.sounding[0])
    return Piece(
        picture=frames[0],
        sound=audio.to_float(clip.sound, clip.sample_rate, data.sample_rate),
        sources=tuple(class_number(name, data) for name in names),
        regions=np.stack(regions),
        region_known=known,
        present=present,
    )


def _window(middle: float, total: int, seconds: int) -> tuple[float, float]:
    """Where the sound begins and ends."""
    length = min(seconds, total)
    begin = min(max(middle - seconds / 2, 0.0), total - length)
    return begin, begin + length


def _untold(labels: Clip, total: int, count: int, seconds: int) -> list[Moment]:
    names = tuple(dict.fromkeys(item.name for item in labels.objects))
    if len(names) != count or not total or not all(item.on_screen for item in labels.objects):
        return []
    boxed = np.ones(total, bool)
    for name in names:
        mine = [item.boxes for item in labels.objects if item.name == name and item.boxes is not None]
        boxed &= np.any([np.isfinite(boxes[:total]).all(1) for boxes in mine], axis=0) if mine else False
    chosen = np.flatnonzero(boxed).tolist() or (list(range(total)) if labels.dataset == "music" else [total // 2])
    times = labels.frame_times[chosen].tolist()
    return [
        Moment(second, names, frozenset(names), *_window(time, total, seconds))
        for second, time in zip(chosen, times, strict=True)
    ]


def _region(clip: Clip, name: str, size: int) -> tuple[Bool[np.ndarray, "y x"] | None, bool]:
    """(where a source is, whether that is known): its masks, else its boxes; None in place of an empty mask."""
    mine = [item for item in clip.objects if item.name == name and item.on_screen]
    if clip.sources_known[0]:
        mine = [item for item in mine if item.sounding[0]]
    if clip.masks_known[0] and mine and all(item.masks is not None for item in mine):
        union = np.any([item.masks for item in mine], axis=0)
        region = transforms.resize_masks(union, size, size)[0]
        return (region, True) if region.any() else (None, True)
    boxes = [item.boxes[0].tolist() for item in mine if item.boxes is not None and np.isfinite(item.boxes).all()]
    region = np.zeros((size, size), bool)
    for left, top, right, bottom in boxes:
        region[_pixels(top, bottom, size), _pixels(left, right, size)] = True
    return region, bool(boxes)


def _pixels(low: float, high: float, size: int) -> slice:
    """Those whose middles lie between two shares of the side; one at least, unless high <= low."""
    if high <= low:
        return slice(0)
    first, end = round(low * size), round(high * size)
    first = min(first, size - 1)
    return slice(first, max(end, first + 1))
