"""f-Music and f-Lifescene: our documented folder of videos, masks and sentences a second.

Their authors have published names and counts and no files, so this layout is ours; docs/data_sets.md shows it whole.
"""

import collections
import dataclasses
import functools
import os
import pathlib

import numpy as np
from pycocotools import mask as coco

from ssu_jax import files
from ssu_jax.config.labels import F_LIFESCENE, F_MUSIC
from ssu_jax.data.datasets import class_names, clip_videos, example_files, pictures, run_length_masks, tables
from ssu_jax.data.datasets.layout import Item, Layout
from ssu_jax.types import Clip, SoundObject, UserError

_WHOLE = "the clip's sound"  # the one object of a clip whose masks are not told apart


@dataclasses.dataclass(frozen=True)
class _Source:
    """A line of sources.csv. sounding: a letter a second, 1, 0 or ? (unknown); "" where the masks alone tell."""

    object: str
    name: str
    on_screen: bool
    sounding: str
    where: str


@dataclasses.dataclass(frozen=True)
class _Facts:
    """sentences: second -> text. masks: (object, second) -> place in the item's files; run_lengths: the JSON's."""

    start: float
    seconds: int
    category: str
    sources: tuple[_Source, ...]
    sentences: dict[int, str]
    masks: dict[tuple[str, int], int]
    run_lengths: int | None


class Described(Layout):
    """clips.csv, and what there is of sources.csv, sentences.csv, masks/ and annotations/."""

    tree: dict[str, str]  # class -> group

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.tree)

    def items(self) -> list[Item]:
        path = self.source / "clips.csv"
        rows = tables.read_csv(path, ("id", "video", "split", "class"), optional=("start", "end"))
        ids = {row["id"] for row in rows}
        sources, sentences = self._sources(ids), self._sentences(ids)
        items = []
        for row in rows:
            video = files.resolve_inside(self.source, row["video"])
            start = row.number("start", 0.0)
            length = row.number("end", start + clip_videos.CLIP_SECONDS) - start
            seconds = int(length + 0.5)
            if not 1 <= seconds <= clip_videos.CLIP_SECONDS:
                raise UserError(f"{row.where}: end must lie 1 to {clip_videos.CLIP_SECONDS} s after start: correct it")
            masks, run_lengths = self._masks_of(row["id"])
            facts = _Facts(
                start,
                seconds,
                self._class(row),
                tuple(sources[row["id"]]),
                sentences[row["id"]],
                {key: 1 + place for place, key in enumerate(masks)},
                1 + len(masks) if run_lengths else None,
            )
            paths = (video, *masks.values(), *([run_lengths] if run_lengths else []))
            items.append(Item(row["id"], row.split(), paths, facts))
        return tables.in_order(items, path)

    def load(self, item: Item) -> Clip:
        clip_videos.check_inside(self.source, item.files)
        clip, size = clip_videos.read_clip(item, self.name, self.reading)
        t, facts = len(clip.frames), item.facts
        masks = self._read_masks(item, t, size)
        objects, masks_known, sources_known = _objects(item, masks, t, size)
        late = [second for second in facts.sentences if second >= t]
        if late:
            raise UserError(
                f"{item.files[0]}: has no second {late[0]}, which a sentence of {item.id} names: correct it"
            )
        return dataclasses.replace(
            clip,
            objects=tuple(
                one if one.masks is None else dataclasses.replace(one, masks=pictures.fit_masks(one.masks, clip.frames))
                for one in objects
            ),
            captions=tuple(facts.sentences.get(second, "") for second in range(t)),
            major=self.tree[facts.category],
            category=facts.category,
            masks_known=masks_known,
            sources_known=sources_known,
            captions_known=np.array([second in facts.sentences for second in range(t)]),
        )

    def faults(self, item: Item) -> list[str]:
        found = clip_videos.told(lambda: clip_videos.check_inside(self.source, item.files))
        found += clip_videos.told(lambda: clip_videos.check_video(item.files[0]))
        for path in item.files[1:]:
            check = pictures.size_of if path.suffix == ".png" else _read_entries
            found += clip_videos.told(functools.partial(check, path))
        return found

    def _name(self, name: str) -> str:
        raise NotImplementedError

    def _class(self, row: tables.Row) -> str:
        row["class"] = self._name(row["class"])
        return row.one_of("class", self.classes, "class")

    def _sources(self, ids: set[str]) -> dict[str, list[_Source]]:
        found, path = collections.defaultdict(list), self.source / "sources.csv"
        if not path.exists():
            return found
        for row in tables.read_csv(path, ("id", "object", "class", "on_screen"), optional=("sounding",)):
            _check_id(row, ids)
            on_screen = row.one_of("on_screen", ("0", "1"), "flag") == "1"
            if set(row["sounding"]) - set("01?"):
                raise UserError(f"{row.where}: sounding must be a 0, 1 or ? a second, got {row['sounding']!r:.40}")
            if any(one.object == row["object"] for one in found[row["id"]]):
                raise UserError(f"{row.where}: the object {row['object']!r} of {row['id']} is there twice: remove one")
            found[row["id"]].append(_Source(row["object"], self._class(row), on_screen, row["sounding"], row.where))
        return found

    def _sentences(self, ids: set[str]) -> dict[str, dict[int, str]]:
        found, path = collections.defaultdict(dict), self.source / "sentences.csv"
        if not path.exists():
            return found
        for row in tables.read_csv(path, ("id", "second", "sentence")):
            _check_id(row, ids)
            second = row.whole("second")
            if second in found[row["id"]]:
                raise UserError(f"{row.where}: second {second} of {row['id']} is there twice: remove one")
            found[row["id"]][second] = row["sentence"]
        return found

    def _masks_of(self, clip_id: str) -> tuple[dict[tuple[str, int], pathlib.Path], pathlib.Path | None]:
        """(object, second) -> PNG, where the object "" is all that sounds; and the JSON with run lengths."""
        folder = files.resolve_inside(self.source, f"masks/{clip_id}")
        found = {}
        for parent, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = pathlib.Path(parent, name)
                parts = path.relative_to(folder).parts
                if len(parts) > 2 or path.suffix != ".png" or not path.stem.isdecimal():
                    raise UserError(f"{path}: wanted masks/ID/SECOND.png or masks/ID/OBJECT/SECOND.png: rename it")
                found["" if len(parts) == 1 else parts[0], int(path.stem)] = path
        lengths = files.resolve_inside(self.source, f"annotations/{clip_id}.json")
        if found and lengths.exists():
            raise UserError(f"{lengths}: the clip has masks in {folder} too: remove one of the two")
        return found, lengths if lengths.exists() else None

    def _read_masks(self, item: Item, t: int, size: tuple[int, int]) -> dict[tuple[str, int], np.ndarray]:
        found = {key: pictures.read_mask(item.files[place], size) for key, place in item.facts.masks.items()}
        if item.facts.run_lengths is not None:
            path = item.files[item.facts.run_lengths]
            for number, entry in enumerate(_read_entries(path)):
                where = f"{path}, entry {number}"
                if not isinstance(entry, dict) or type(entry.get("second")) is not int or entry["second"] < 0:
                    raise UserError(f"{where}: wanted a second from 0 up, an object and a segmentation: correct it")
                key = (str(entry.get("object", "")), entry["second"])
                if key in found:
                    raise UserError(f"{where}: second {key[1]} of object {key[0]!r} is there twice: remove one")
                found[key] = run_length_masks.decode(entry.get("segmentation"), size, where)
        for name, second in found:
            if second >= t:
                raise UserError(
                    f"{item.files[0]}: has no second {second}, of which {item.id} has a mask {name}: correct it"
                )
        return found

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """The first clip has its masks as run lengths, the second one mask a second for all that sounds and no
        sources, the others a PNG an object and second. The last sentence of each third clip is not given.
        """
        classes = tuple(cls(folder).tree)
        clips, sources, sentences = [], [], []
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            name = f"{number:08d}_0_10"
            example_files.write_video(folder / "videos" / f"{name}.mp4", clip)
            category = example_files.category_for(clip, classes)
            clips.append((name, f"videos/{name}.mp4", "", "", example_files.split_of(number), category))
            told = clip.captions[:-1] if number % 3 == 2 else clip.captions
            sentences += [(name, second, text) for second, text in enumerate(told)]
            _write_masks(folder, name, number, clip)
            for place, one in enumerate(clip.objects if number != 1 else ()):
                flags = "".join(str(int(flag)) for flag in one.sounding)
                sources.append((name, place, example_files.class_for(one.name, classes), int(one.on_screen), flags))
        example_files.write_table(folder / "clips.csv", ("id", "video", "start", "end", "split", "class"), clips)
        example_files.write_table(folder / "sources.csv", ("id", "object", "class", "on_screen", "sounding"), sources)
        example_files.write_table(folder / "sentences.csv", ("id", "second", "sentence"), sentences)


class FMusic(Described):
    """22 instruments in four groups."""

    name = "f_music"
    title = "f-Music, 22 instruments: videos, masks and sentences in our documented folder"
    tree = F_MUSIC

    def _name(self, name: str) -> str:
        return class_names.f_music_name(name)


class FLifescene(Described):
    """61 sounds of life in seven groups."""

    name = "f_lifescene"
    title = "f-Lifescene, 61 sounds of life: videos, masks and sentences in our documented folder"
    tree = F_LIFESCENE

    def _name(self, name: str) -> str:
        return class_names.f_lifescene_name(name)


def _objects(item: Item, masks: dict[tuple[str, int], np.ndarray], t: int, size: tuple[int, int]) -> tuple:
    """The objects of a clip, and where masks and sounding are known.

    Without sources.csv all masks are one object of the clip's class; masks of all that sounds go with one object in
    view. An object without flags sounds where its mask is not empty, and is unknown where it has none.
    """
    sources = item.facts.sources or (_Source(_WHOLE, item.facts.category, True, "", item.id),)
    seen = [one for one in sources if one.on_screen]
    named = {name for name, _ in masks}
    if not seen and not any(mask.any() for mask in masks.values()):
        masks = {}
    elif "" in named or not item.facts.sources:
        if len(named) > 1 or len(seen) != 1:
            raise UserError(
                f"{item.id}: has masks that are not told apart and {len(seen)} objects in view: "
                "give masks/ID/OBJECT/SECOND.png and name each object in sources.csv"
            )
        masks = {(seen[0].object, second): mask for (_, second), mask in masks.items()}
    elif unknown := sorted(named - {one.object for one in seen}):
        raise UserError(f"{item.id}: has masks of {unknown[0]!r}, which sources.csv does not name in view: add it")
    # Nothing in view is an empty mask that is known, once the sources are told.
    masks_known = np.array([all((one.object, second) in masks for one in seen) for second in range(t)])
    sources_known = np.ones(t, bool)
    objects = []
    for one in sources:
        stack = None
        if one.on_screen and any(name == one.object for name, _ in masks):
            empty = np.zeros(size, bool)
            stack = np.stack([masks.get((one.object, second), empty) for second in range(t)])
        if one.sounding:
            if len(one.sounding) != t:
                raise UserError(f"{one.where}: {len(one.sounding)} letters for {t} seconds: give one a second")
            letters = np.array(list(one.sounding))
            sounding, known = letters == "1", letters != "?"
        else:
            known = np.array([(one.object, second) in masks for second in range(t)])
            sounding = np.zeros(t, bool) if stack is None else stack.any((1, 2))
        sources_known &= known
        objects.append(SoundObject(one.name, sounding, one.on_screen, stack))
    return objects, masks_known, sources_known


def _read_entries(path: pathlib.Path) -> list:
    return tables.read_json(path, list)


def _check_id(row: tables.Row, ids: set[str]) -> None:
    if row["id"] not in ids:
        raise UserError(f"{row.where}: the id {row['id']!r:.60} is not in clips.csv: add it there, or remove the line")


def _write_masks(folder: pathlib.Path, name: str, number: int, clip: Clip) -> None:
    if number == 1:
        for second, mask in enumerate(clip.sounding_masks):
            example_files.write_picture(folder / "masks" / name / f"{second}.png", mask)
        return
    entries = []
    for place, one in enumerate(clip.objects):
        for second, mask in enumerate(() if one.masks is None else one.masks):
            if number:
                example_files.write_picture(folder / "masks" / name / str(place) / f"{second}.png", mask)
            else:
                encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
                segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
                entries.append({"object": str(place), "second": second, "segmentation": segmentation})
    if entries:
        example_files.write_json(files.make_folder(folder / "annotations") / f"{name}.json", entries)
