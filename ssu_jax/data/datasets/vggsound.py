"""VGGSound (a list of clips with one label each) and VGG-SS (boxes of what sounds, in the middle of the clip)."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from ssu_jax import files
from ssu_jax.data.datasets import class_names, clip_videos, example_files, tables
from ssu_jax.data.datasets.clip_videos import CLIP_SECONDS, Piece, VideoLayout
from ssu_jax.data.datasets.layout import Item
from ssu_jax.types import Clip, SoundObject, UserError

_BOX_TIME = 5.0  # VGG-SS drew its boxes in frame 125 at 25 frames a second
_BOX_SECOND = 5


@dataclasses.dataclass(frozen=True)
class _BoxedPiece(Piece):
    """boxes: left, top, right, bottom as shares, of one object each."""

    boxes: tuple[tuple[float, ...], ...] = ()


class VggSound(VideoLayout):
    """vggsound.csv (no first line: YouTube id, start in seconds, label, split) and the clips somewhere below.

    A clip's file is named id_start with 6 digits or without zeros, or id_start_end in milliseconds. The label is all
    that is known; in which seconds it sounds is not told.
    """

    name = "vggsound"
    title = "VGGSound, 309 labels: vggsound.csv and the clips' videos below the folder"

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({row["label"] for row in self._rows()}))

    def items(self) -> list[Item]:
        videos = _Videos(self.source)
        items = []
        for row in self._rows():
            start, split = row.whole("start"), row.split()
            name = f"{row['id']}_{start:06d}"
            items.append(Item(name, split, (videos.of(row["id"], start),), Piece(names=(row["label"],))))
        return tables.in_order(items, self.source)

    def load(self, item: Item) -> Clip:
        clip = self.read(item)
        silent = np.zeros(len(clip.frames), bool)
        objects = tuple(SoundObject(name, silent) for name in item.facts.names)
        return dataclasses.replace(clip, objects=objects, category=item.facts.names[0])

    def _rows(self) -> list[tables.Row]:
        path = tables.first_file(self.source, "vggsound.csv", "data/vggsound.csv")
        return tables.read_csv(path, ("id", "start", "label", "split"), header=False)

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """The three ways of naming by turns."""
        rows, labels = [], tuple(class_names.VGGSOUND)
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            name, start = f"example{number:04d}", 10 * number
            path = folder / "video" / f"{_names_of(name, start)[number % 3]}.mp4"
            example_files.write_video(path, clip)
            rows.append((name, start, example_files.category_for(clip, labels), ("train", "test")[number % 2]))
        example_files.write_table(folder / "vggsound.csv", None, rows)


class VggSS(VideoLayout):
    """vggss.json (file, class, bbox) and the clips of VGGSound that it names, somewhere below.

    Each box is an object. The picture of second 5 is taken at 5.0 s, where the boxes were drawn, and there alone
    the objects have boxes. Boxes are cut to the picture; those that are empty then (there are some) are left out.
    """

    name = "vgg_ss"
    title = "VGG-SS, boxes of 221 labels: vggss.json and VGGSound's clips below the folder"

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for _, _, label, _ in self._entries()}))

    def items(self) -> list[Item]:
        videos = _Videos(self.source)
        return tables.in_order(
            (
                Item(f"{name}_{start:06d}", "test", (videos.of(name, start),), _BoxedPiece(names=(label,), boxes=boxes))
                for name, start, label, boxes in self._entries()
            ),
            self._list(),
        )

    def load(self, item: Item) -> Clip:
        moments = [_BOX_TIME - second if second == _BOX_SECOND else 0.5 for second in range(CLIP_SECONDS)]
        clip = self.read(item, moments)
        t = len(clip.frames)
        if t <= _BOX_SECOND:
            raise UserError(f"{item.files[0]}: lasts {t} s, its boxes belong to the picture at {_BOX_TIME} s: get all")
        boxed, label = np.arange(t) == _BOX_SECOND, item.facts.names[0]
        objects = []
        for box in item.facts.boxes:
            boxes = np.full((t, 4), np.nan, np.float32)
            boxes[_BOX_SECOND] = box
            objects.append(SoundObject(label, boxed, boxes=boxes))
        return dataclasses.replace(
            clip, objects=tuple(objects) or (SoundObject(label, np.zeros(t, bool)),), category=label
        )

    def _list(self) -> pathlib.Path:
        return tables.first_file(self.source, "vggss.json", "metadata/vggss.json", "annotations/vggss.json")

    def _entries(self) -> list[tuple[str, int, str, tuple[tuple[float, ...], ...]]]:
        """(YouTube id, start, label, boxes) of every clip."""
        path, found = self._list(), []
        for number, entry in enumerate(tables.read_json(path, list)):
            where = f"{path}, entry {number}"
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file", "class")):
                raise UserError(f"{where}: wanted file, class and bbox: get the file again")
            name, _, start = entry["file"].rpartition("_")
            if not name or not start.isdecimal():
                raise UserError(f"{where}: the file {entry['file']!r:.40} is no YouTube id and start: correct it")
            boxes = tuple(box for box in map(cut_box, _boxes(entry.get("bbox"), where)) if box)
            found.append((name, int(start), entry["class"], boxes))
        return found

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """A box around each object that is seen in second 5, all with the label of the clip."""
        entries, labels = [], tuple(class_names.VGGSOUND)
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            name, start = f"example{number:04d}", 10 * number
            example_files.write_video(folder / "video" / f"{_names_of(name, start)[0]}.mp4", clip)
            boxes = [box_around(one.masks[_BOX_SECOND]).tolist() for one in clip.objects if one.masks is not None]
            label = example_files.category_for(clip, labels)
            entries.append({"file": _names_of(name, start)[0], "class": label, "bbox": boxes})
        example_files.write_json(folder / "vggss.json", entries)


def cut_box(box: tuple[float, ...]) -> tuple[float, ...] | None:
    """Left, top, right, bottom cut to the picture; None if nothing is left."""
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in box)
    return (left, top, right, bottom) if right > left and bottom > top else None


def box_around(mask: np.ndarray) -> Float[np.ndarray, "4"]:
    """The smallest box with a mask's pixels, as shares: left, top, right, bottom."""
    y, x = np.nonzero(mask)
    rows, columns = mask.shape
    return np.array([x.min() / columns, y.min() / rows, (x.max() + 1) / columns, (y.max() + 1) / rows])


class _Videos:
    """Where the clip of a YouTube id and a start lies."""

    def __init__(self, source: pathlib.Path):
        self.source = source
        self.found = {stem.removeprefix("vggsound_"): path for stem, path in clip_videos.videos_below(source).items()}

    def of(self, name: str, start: int) -> pathlib.Path:
        """The file, or the name that is missed. Raises UserError for an id that would lead out of the folder."""
        names = _names_of(name, start)
        there = next((self.found[one] for one in names if one in self.found), None)
        return there or files.resolve_inside(self.source, f"video/{names[0]}.mp4")


def _names_of(name: str, start: int) -> tuple[str, str, str]:
    return f"{name}_{start:06d}", f"{name}_{start}", f"{name}_{start * 1000}_{(start + CLIP_SECONDS) * 1000}"


def _boxes(boxes: Any, where: str) -> list[tuple[float, ...]]:
    if not isinstance(boxes, list):
        raise UserError(f"{where}: wanted a list of boxes, got {boxes!r:.40}: get the file again")
    for box in boxes:
        numbers = isinstance(box, list) and [value for value in box if type(value) in (int, float)]
        if not numbers or len(box) != 4 or len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            raise UserError(f"{where}: a box must be 4 numbers, got {box!r:.60}: correct it")
    return [tuple(map(float, box)) for box in boxes]
