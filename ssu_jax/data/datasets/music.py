"""MUSIC: solos and duets of 11 instruments (21 in its second version), whole videos by instrument."""

import collections
import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import numpy as np

from ssu_jax import files
from ssu_jax.data.datasets import class_names, clip_videos, example_files, tables
from ssu_jax.data.datasets.clip_videos import CLIP_SECONDS, Piece, VideoLayout
from ssu_jax.data.datasets.layout import Item
from ssu_jax.data.datasets.vggsound import box_around, cut_box
from ssu_jax.types import Clip, SoundObject, UserError

# Lists of roudimit/MUSIC_dataset; one of them is enough.
_LISTS = {
    "MUSIC_solo_videos.json": "solo",
    "MUSIC21_solo_videos.json": "solo",
    "MUSIC_duet_videos.json": "duet",
}
# Boxes of the test videos (stoneMo/AVGN: metadata). "file" is id_second_frame, a frame at 30 a second: the last of
# videos whose length is known elsewhere allow no other rate. A box is left, top, width, height as shares.
_BOX_LISTS = {"music_solo.json": "solo", "music_duet.json": "duet"}
_BOX_FRAMES_PER_SECOND = 30
_VAL_SHARE = _TEST_SHARE = 0.1
_FILES = (".mp4", ".mkv", ".webm")

_Boxes = dict[tuple[str, str], dict[int, dict[str, tuple[float, tuple[float, ...]]]]]


@dataclasses.dataclass(frozen=True)
class _BoxedPiece(Piece):
    """boxes: (name, second of the clip) -> left, top, right, bottom as shares."""

    boxes: dict[tuple[str, int], tuple[float, ...]] = dataclasses.field(default_factory=dict)


class Music(VideoLayout):
    """MUSIC_solo_videos.json, MUSIC_duet_videos.json and <solo|duet>/<instrument>/<id>.mp4, cut into clips of 10 s.

    Which instruments play is known, when they sound is not. With music_solo.json and music_duet.json beside the
    lists (or in metadata/) the videos that have boxes there are the test split; else a tenth of the videos is, by
    the hash of their id, and another tenth the validation split. All clips of a video are in one split.
    """

    name = "music"
    title = "MUSIC, solos and duets of 11 or 21 instruments: the lists of ids and the videos by instrument"

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for _, key, _ in self._videos() for name in key.split()}))

    def items(self) -> list[Item]:
        videos, boxes = self._videos(), self._boxes()
        boxed = {name for _, name in boxes}
        paths = [self._path(kind, key, name) for kind, key, name in videos]
        items = []
        for (kind, key, name), path, starts in zip(videos, paths, clip_videos.starts_of(paths), strict=True):
            split = tables.split_by_hash(name, _VAL_SHARE, 0.0 if boxed else _TEST_SHARE)
            of_video = boxes.get((kind, name), {})
            for start in starts:
                here = {
                    (label, second): box
                    for second in range(CLIP_SECONDS)
                    for label, (_, box) in of_video.get(int(start) + second, {}).items()
                }
                facts = _BoxedPiece(start, CLIP_SECONDS, tuple(key.split()), here)
                items.append(
                    Item(f"{kind}/{key}/{name}#{int(start):06d}", "test" if name in boxed else split, (path,), facts)
                )
        return tables.in_order(items, self.source)

    def load(self, item: Item) -> Clip:
        clip = self.read(item)
        t, objects = len(clip.frames), []
        for name in item.facts.names:
            boxes = np.full((t, 4), np.nan, np.float32)
            for second in range(t):
                boxes[second] = item.facts.boxes.get((name, second), np.nan)
            has_boxes = np.isfinite(boxes).any()
            objects.append(SoundObject(name, np.zeros(t, bool), boxes=boxes if has_boxes else None))
        category = item.facts.names[0] if len(item.facts.names) == 1 else ""
        return dataclasses.replace(clip, objects=tuple(objects), category=category)

    def _videos(self) -> list[tuple[str, str, str]]:
        """(solo or duet, instruments with a space between, YouTube id) of every video, each once."""
        lists = {name: kind for name, kind in _LISTS.items() if (self.source / name).is_file()}
        if not lists:
            raise UserError(f"{self.source}: holds none of {', '.join(_LISTS)}: check --source")
        found = {}
        for name, kind in lists.items():
            path = self.source / name
            videos = tables.read_json(path, dict).get("videos")
            if not isinstance(videos, dict) or not all(isinstance(ids, list) for ids in videos.values()):
                raise UserError(f"{path}: wanted lists of ids by instrument below 'videos': get the file again")
            for key, one in ((key, one) for key, ids in videos.items() for one in ids):
                if not isinstance(one, str) or len(key.split()) != (1 if kind == "solo" else 2):
                    raise UserError(f"{path}: {key!r:.60} with {one!r:.20} is no {kind} of a YouTube id: correct it")
                found[kind, key, one] = None
        return list(found)

    def _path(self, kind: str, key: str, name: str) -> pathlib.Path:
        """The file, or the name that is missed; a duet's folder may have an underscore for the space."""
        places = [
            files.resolve_inside(self.source, f"{kind}/{folder}/{name}{ending}")
            for folder, ending in itertools.product(dict.fromkeys((key, key.replace(" ", "_"))), _FILES)
        ]
        return next((place for place in places if place.is_file()), places[0])

    def _boxes(self) -> _Boxes:
        """Of each (solo or duet, id), second and instrument the box nearest to the middle of the second."""
        found = collections.defaultdict(lambda: collections.defaultdict(dict))
        for list_name, kind in _BOX_LISTS.items():
            path = tables.first_file(self.source, list_name, f"metadata/{list_name}")
            for number, entry in enumerate(tables.read_json(path, list) if path.is_file() else ()):
                where = f"{path}, entry {number}"
                video, seconds, pairs = _box_entry(entry, kind, where)
                second = int(seconds)
                for name, box in pairs:
                    if name not in self.classes:
                        raise UserError(f"{where}: unknown class {name!r:.60}: correct it")
                    distance = abs(seconds - second - 0.5)
                    before = found[kind, video][second].get(name)
                    if before is None or distance < before[0]:
                        found[kind, video][second][name] = distance, box
        return found

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """The first video is of two clips, each third one a duet; the first solo of one clip and the first duet have
        boxes, and are the test split.
        """
        lists, boxes = {"solo": {}, "duet": {}}, {"solo": [], "duet": []}
        worlds = example_files.world(num_clips + 1, seed)
        for number in range(num_clips):
            clips = worlds[:2] if number == 0 else worlds[number + 1 : number + 2]
            seen = dict.fromkeys(example_files.class_for(one.name, class_names.MUSIC) for one in clips[0].objects)
            kind = "duet" if number % 3 == 2 and len(seen) > 1 else "solo"
            key, name = " ".join(list(seen)[: 1 + (kind == "duet")]), f"example{number:04d}"
            lists[kind].setdefault(key, []).append(name)
            example_files.write_video(folder / kind / key / f"{name}.mp4", *clips)
            masked = [one for one in clips[0].objects if one.masks is not None]
            by_name = {example_files.class_for(one.name, class_names.MUSIC): one.masks for one in reversed(masked)}
            if number in (1, 2) and not boxes[kind] and set(key.split()) <= set(by_name):
                boxes[kind] = _example_boxes(name, {part: by_name[part] for part in key.split()})
        for kind, videos in lists.items():
            example_files.write_json(folder / f"MUSIC_{kind}_videos.json", {"version": 1.0, "videos": videos})
            example_files.write_json(folder / f"music_{kind}.json", boxes[kind])


def _box_entry(entry: Any, kind: str, where: str) -> tuple[str, float, list[tuple[str, tuple[float, ...]]]]:
    """YouTube id, time in seconds, and (instrument, corners) of an entry."""
    suffixes = _suffixes(1 if kind == "solo" else 2)
    try:
        video, _, frame = entry["file"].rsplit("_", 2)
        pairs = [(entry[f"class{suffix}"], tuple(map(float, entry[f"bbox{suffix}"]))) for suffix in suffixes]
        corners = [(name, cut_box((x, y, x + width, y + height))) for name, (x, y, width, height) in pairs]
        seconds = int(frame) / _BOX_FRAMES_PER_SECOND
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: wanted file, class and bbox (4 numbers), got {entry!r:.80}: correct it") from None
    empty = [name for name, box in corners if box is None]
    if empty:
        raise UserError(f"{where}: the box of {empty[0]!r:.40} is empty, or lies outside the picture: correct it")
    return video, seconds, corners


def _example_boxes(video: str, masks: dict[str, np.ndarray]) -> list[dict]:
    """Frames 0, 7, 14 and 21 of each second, as the published lists have them."""
    entries, suffixes = [], _suffixes(len(masks))
    for second in range(CLIP_SECONDS):
        entry = {}
        for suffix, (name, of_name) in zip(suffixes, masks.items(), strict=True):
            left, top, right, bottom = box_around(of_name[second]).tolist()
            entry |= {f"class{suffix}": name, f"bbox{suffix}": [left, top, right - left, bottom - top]}
        for frame in range(0, _BOX_FRAMES_PER_SECOND - 2, 7):
            entries.append({"file": f"{video}_{second:03d}_{second * _BOX_FRAMES_PER_SECOND + frame:05d}", **entry})
    return entries


def _suffixes(count: int) -> tuple[str, ...]:
    """Of the keys of an entry with one source, or two."""
    return ("",) if count == 1 else ("_src1", "_src2")
