"""AVSBench as distributed: the object release (S4, MS3) and the semantic release (AVSS), frames and masks as files.

Only what sounds has a mask there: a class without one in an annotated frame counts as silent. Frames are the last of
16 samples of each second (OpenNLPLab/AVSBench: preprocess_scripts); for the clips that AVSS added nothing is said of
it, and the same is taken. Sentences are unknown throughout.
"""

import abc
import dataclasses
import functools
import pathlib

import numpy as np
from jaxtyping import UInt8

from ssu_jax import files
from ssu_jax.data import transforms, video
from ssu_jax.data.datasets import class_names, clip_videos, example_files, pictures, tables
from ssu_jax.data.datasets.layout import Item, Layout
from ssu_jax.types import Clip, SoundObject, UserError

_FRAME_MOMENT = 15 / 16  # of its second
_S4_FRAMES = 5
_ANNOTATED = {"v1s": 5, "v1m": 5, "v2": 10}  # frames of a clip of each part of AVSS; of v1s in training, one label
_UNSEEN = "off-the-screen"  # in AVSS's column of classes


@dataclasses.dataclass(frozen=True)
class _Facts:
    """The item's files are `frames` frames, `masks` masks and a sound. told: class names; where: line of the list."""

    frames: int
    masks: int
    told: tuple[str, ...]
    where: str


class _AvsBench(Layout):
    """What the releases have in common. `clip_frames`: to which clips are padded."""

    clip_frames = _S4_FRAMES
    tells_classes = True

    def load(self, item: Item) -> Clip:
        clip_videos.check_inside(self.source, item.files)
        facts, t, rate = item.facts, self.clip_frames, self.reading.sample_rate
        self._check_told(item)
        frames, size = pictures.read_frames(item.files[: facts.frames], self.reading.frame_size)
        sound = video.file_sound(item.files[-1], rate, facts.frames)
        valid = np.arange(t) < facts.frames
        known = np.arange(t) < facts.masks
        objects = []
        for name, masks in self._masks(item, size).items():
            stack = _padded(pictures.fit_masks(np.stack(masks), frames), t)
            objects.append(SoundObject(name, stack.any((1, 2)), True, stack))
        return Clip(
            id=item.id,
            frames=_padded(frames, t),
            frame_times=np.arange(t) + _FRAME_MOMENT,
            sound=np.pad(sound, (0, t * rate - len(sound))),
            sample_rate=rate,
            valid=valid,
            captions=("",) * t,
            objects=tuple(objects),
            dataset=self.name,
            category=facts.told[0] if len(facts.told) == 1 else "",
            masks_known=known,
            captions_known=np.zeros(t, bool),
            sources_known=known if self.tells_classes else np.zeros(t, bool),
        )

    def faults(self, item: Item) -> list[str]:
        found = clip_videos.told(lambda: clip_videos.check_inside(self.source, item.files))
        found += clip_videos.told(lambda: self._check_told(item))
        for path in item.files[:-1]:
            found += clip_videos.told(functools.partial(pictures.size_of, path))
        return found + clip_videos.told(lambda: clip_videos.check_sound(item.files[-1]))

    def _mask_files(self, item: Item) -> tuple[pathlib.Path, ...]:
        return item.files[item.facts.frames : -1]

    def _check_told(self, item: Item) -> None:
        for name in item.facts.told:
            if name not in self.classes:
                raise UserError(f"{item.facts.where}: unknown class {name!r:.60} of {item.id}: correct it")

    @abc.abstractmethod
    def _masks(self, item: Item, size: tuple[int, int]) -> dict[str, list[np.ndarray]]:
        """Of each class of the clip, a mask for every annotated frame."""


class _ObjectRelease(_AvsBench):
    """S4 and MS3: one black and white mask a frame."""

    part: str  # the folder of the release that holds the list
    list_name: str

    @property
    def folder(self) -> pathlib.Path:
        """Below --source, or --source itself."""
        inner = self.source / self.part
        return inner if inner.is_dir() else self.source

    def _masks(self, item: Item, size: tuple[int, int]) -> dict[str, list[np.ndarray]]:
        return {item.facts.told[0]: [pictures.read_mask(path, size) for path in self._mask_files(item)]}


class S4(_ObjectRelease):
    """Single-source: 5 frames of 5 s, in training only the first has a mask."""

    name = "avsbench_s4"
    title = "AVSBench S4, one source of 23 classes: the object release's Single-source folder"
    seconds = _S4_FRAMES
    part, list_name = "Single-source", "s4_meta_data.csv"

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names.AVSBENCH_S4

    def items(self) -> list[Item]:
        path = self.folder / self.list_name
        items = []
        for row in tables.read_csv(path, ("name", "category", "split")):
            name, split = row["name"], row.split()
            place = f"{split}/{row.one_of('category', self.classes, 'class')}/{name}"
            frames = files.resolve_inside(self.folder, f"s4_data/visual_frames/{place}")
            masks = files.resolve_inside(self.folder, f"s4_data/gt_masks/{place}")
            sound = files.resolve_inside(self.folder, f"s4_data/audio_wav/{place}.wav")
            count = 1 if split == "train" else _S4_FRAMES
            paths = (
                *(frames / f"{name}_{k}.png" for k in range(1, _S4_FRAMES + 1)),
                *(masks / f"{name}_{k}.png" for k in range(1, count + 1)),
                sound,
            )
            items.append(Item(name, split, paths, _Facts(_S4_FRAMES, count, (row["category"],), row.where)))
        return tables.in_order(items, path)

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        rows, data = [], folder / cls.part / "s4_data"
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            name, split = f"example-{number:03d}", example_files.split_of(number)
            category = example_files.category_for(clip, class_names.AVSBENCH_S4)
            rows.append((name, 0, category, split))
            place = f"{split}/{category}/{name}"
            _write_object_clip(
                clip,
                data / "visual_frames" / place / f"{name}_{{}}.png",
                data / "gt_masks" / place / f"{name}_{{}}.png",
                data / "audio_wav" / f"{place}.wav",
                1 if split == "train" else _S4_FRAMES,
            )
        example_files.write_table(folder / cls.part / cls.list_name, ("name", "start", "category", "split"), rows)


class MS3(_ObjectRelease):
    """Multi-sources: 5 frames of 5 s, all with masks; which class sounds is not told."""

    name = "avsbench_ms3"
    title = "AVSBench MS3, several sources without classes: the object release's Multi-sources folder"
    seconds = _S4_FRAMES
    part, list_name = "Multi-sources", "ms3_meta_data.csv"
    tells_classes = False

    @property
    def classes(self) -> tuple[str, ...]:
        return ("sounding object",)

    def items(self) -> list[Item]:
        path = self.folder / self.list_name
        items = []
        for row in tables.read_csv(path, ("video_id", "split")):
            name, split = row["video_id"], row.split()
            frames = files.resolve_inside(self.folder, f"ms3_data/visual_frames/{name}")
            masks = files.resolve_inside(self.folder, f"ms3_data/gt_masks/{split}/{name}")
            sound = files.resolve_inside(self.folder, f"ms3_data/audio_wav/{split}/{name}.wav")
            numbers = range(1, _S4_FRAMES + 1)
            paths = (
                *(frames / f"{name}.mp4_{k}.png" for k in numbers),
                *(masks / f"{name}_{k}.png" for k in numbers),
                sound,
            )
            items.append(Item(name, split, paths, _Facts(_S4_FRAMES, _S4_FRAMES, self.classes, row.where)))
        return tables.in_order(items, path)

    def load(self, item: Item) -> Clip:
        return dataclasses.replace(super().load(item), category="")

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        rows, data = [], folder / cls.part / "ms3_data"
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            name, split = f"example-{number:03d}_0", example_files.split_of(number)
            rows.append((name, split))
            _write_object_clip(
                clip,
                data / "visual_frames" / name / f"{name}.mp4_{{}}.png",
                data / "gt_masks" / split / name / f"{name}_{{}}.png",
                data / "audio_wav" / split / f"{name}.wav",
                _S4_FRAMES,
            )
        example_files.write_table(folder / cls.part / cls.list_name, ("video_id", "split"), rows)


class AVSS(_AvsBench):
    """v1s, v1m (5 s, padded to 10 frames) and v2 (10 s): a coloured label a frame, of 70 classes and background."""

    name = "avss"
    title = "AVSBench-semantic, 70 classes: the folder of v1s, v1m, v2 and metadata.csv"
    clip_frames = 10

    @property
    def classes(self) -> tuple[str, ...]:
        return class_names.AVSS[1:]

    def items(self) -> list[Item]:
        self._check_labels()
        path = self.source / "metadata.csv"
        items = []
        for row in tables.read_csv(path, ("uid", "a_obj", "split", "label")):
            uid, split, part = row["uid"], row.split(), row.one_of("label", tuple(_ANNOTATED), "label")
            folder = files.resolve_inside(self.source, f"{part}/{uid}")
            count = _ANNOTATED[part]
            masks = 1 if part == "v1s" and split == "train" else count
            paths = (
                *(folder / "frames" / f"{k}.jpg" for k in range(count)),
                *(folder / "labels_rgb" / f"{k}.png" for k in range(masks)),
                folder / "audio.wav",
            )
            told = tuple(row["a_obj"].split("_")) if row["a_obj"] != _UNSEEN else ()
            items.append(Item(uid, split, paths, _Facts(count, masks, told, row.where)))
        return tables.in_order(items, path)

    def _masks(self, item: Item, size: tuple[int, int]) -> dict[str, list[np.ndarray]]:
        labels = [_labels_of(path, size) for path in self._mask_files(item)]
        there = {int(number) for label in labels for number in np.unique(label)} - {0}
        there |= {class_names.AVSS.index(name) for name in item.facts.told}
        return {class_names.AVSS[number]: [label == number for label in labels] for number in sorted(there)}

    def _check_labels(self) -> None:
        """Colours stand for the names in this order. Raises UserError where the folder says otherwise."""
        path = self.source / "label2idx.json"
        if path.exists() and tuple(tables.read_json(path, dict)) != class_names.AVSS:
            raise UserError(f"{path}: names other classes than AVSS's 71, or in another order: get the file again")

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """Clips of v1s, v1m and v2 by turns, in all splits."""
        rows, names = [], class_names.AVSS[1:]
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            split, part = example_files.split_of(number), tuple(_ANNOTATED)[(number + number // 3) % 3]
            uid, count = f"example-{number:03d}_0_{_ANNOTATED[part]}000", _ANNOTATED[part]
            clip = transforms.stretch(clip, 0, count)
            sounding = [one for one in clip.objects if one.on_screen and one.sounding.any()]
            told = sorted({example_files.class_for(one.name, names) for one in sounding})
            rows.append((uid.split("_")[0], uid, 0, 0, "_".join(told) or _UNSEEN, split, part))
            label = np.zeros(clip.frames.shape[:3], np.uint8)
            for one in sounding:
                here = one.masks & one.sounding[:, None, None]
                label[here] = class_names.AVSS.index(example_files.class_for(one.name, names))
            for k in range(count):
                example_files.write_picture(folder / part / uid / "frames" / f"{k}.jpg", clip.frames[k])
            for k in range(1 if part == "v1s" and split == "train" else count):
                example_files.write_picture(folder / part / uid / "labels_rgb" / f"{k}.png", _palette()[label[k]])
            example_files.write_wav(folder / part / uid / "audio.wav", clip.sound, clip.sample_rate)
        columns = ("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label")
        example_files.write_table(folder / "metadata.csv", columns, rows)
        example_files.write_json(folder / "label2idx.json", {name: 1 + i for i, name in enumerate(class_names.AVSS)})


@functools.cache
def _palette() -> UInt8[np.ndarray, "classes 3"]:
    """PASCAL VOC's colours: bits 0, 1, 2 of a number are the highest of red, green, blue, bits 3, 4, 5 the next."""
    colours = np.zeros((len(class_names.AVSS), 3), np.uint8)
    for number, colour in enumerate(colours):
        for bit in range(8):
            colour[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return colours


def _labels_of(path: pathlib.Path, size: tuple[int, int]) -> UInt8[np.ndarray, "y x"]:
    """Numbers of the classes that the colours stand for. Raises UserError for a colour of no class."""
    weights = np.array([1 << 16, 1 << 8, 1])
    codes, inverse = np.unique(pictures.read_colours(path, size) @ weights, return_inverse=True)
    known = {int(code): number for number, code in enumerate(_palette() @ weights)}
    strange = [int(code) for code in codes if int(code) not in known]
    if strange:
        raise UserError(f"{path}: the colour #{strange[0]:06x} stands for none of the 71 classes: get the file again")
    return np.array([known[int(code)] for code in codes], np.uint8)[inverse.reshape(size)]


def _padded(values: np.ndarray, t: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((t - len(values), *values.shape[1:]), values.dtype)])


def _write_object_clip(
    clip: Clip, frames: pathlib.Path, masks: pathlib.Path, sound: pathlib.Path, num_masks: int
) -> None:
    """The first 5 seconds; the names of frames and masks hold a {} for their number, from 1."""
    clip = transforms.stretch(clip, 0, _S4_FRAMES)
    for path, images in ((frames, clip.frames), (masks, clip.sounding_masks[:num_masks])):
        for k, image in enumerate(images, 1):
            example_files.write_picture(path.with_name(path.name.format(k)), image)
    example_files.write_wav(sound, clip.sound, clip.sample_rate)
