"""MUSIC-AVQA: 60-second performances with questions and answers, of which only the instruments are taken.

Its ids are the likely source of f-Music (its names are MUSIC-AVQA's 22, its clips are named by such ids), so the
classes are given f-Music's names.
"""

import collections
import dataclasses
import json
import pathlib

import numpy as np

from ssu_jax import files
from ssu_jax.config.labels import F_MUSIC, F_MUSIC_CLASSES
from ssu_jax.data.datasets import class_names, clip_videos, example_files, tables
from ssu_jax.data.datasets.clip_videos import Piece, VideoLayout
from ssu_jax.data.datasets.layout import Item
from ssu_jax.types import Clip, SoundObject, UserError

# Where the lists lie below the folder; where the videos are looked for first (the second name is as distributed).
_LISTS = ("", "data/json/", "json/")
_REAL, _SYNTHETIC = "MUSIC-AVQA-videos-Real", "MUCIS-AVQA-videos-Synthetic"


class MusicAvqa(VideoLayout):
    """avqa-train.json, avqa-val.json, avqa-test.json and <video_id>.mp4 somewhere below, cut into clips of 10 s.

    An instrument is in a video if an answer names it, or a question that takes it for granted; a question whether or
    how many tells of it only when answered so. The list of a video need not be complete, and says nothing of when an
    instrument sounds, nor whether it is in the picture. A video with questions in several lists goes to the
    strictest split: test before val before train.
    """

    name = "music_avqa"
    title = "MUSIC-AVQA, 22 instruments of whole videos: the lists of questions and the videos below the folder"

    @property
    def classes(self) -> tuple[str, ...]:
        return F_MUSIC_CLASSES

    def items(self) -> list[Item]:
        splits, names = {}, collections.defaultdict(set)
        for split in tables.SPLITS:
            path = tables.first_file(self.source, *(f"{place}avqa-{split}.json" for place in _LISTS))
            for number, question in enumerate(tables.read_json(path, list)):
                video, found = _read(question, f"{path}, entry {number}")
                splits[video] = split
                names[video] |= found
        there = clip_videos.videos_below(self.source)
        videos = sorted(splits)
        paths = [there.get(video) or self._missing(video) for video in videos]
        items = [
            Item(f"{video}#{int(start):06d}", splits[video], (path,), Piece(start, names=tuple(sorted(names[video]))))
            for video, path, starts in zip(videos, paths, clip_videos.starts_of(paths), strict=True)
            for start in starts
        ]
        return tables.in_order(items, self.source)

    def load(self, item: Item) -> Clip:
        clip = self.read(item)
        silent, names = np.zeros(len(clip.frames), bool), item.facts.names
        category = names[0] if len(names) == 1 else ""
        return dataclasses.replace(
            clip,
            objects=tuple(SoundObject(name, silent) for name in names),
            category=category,
            major=F_MUSIC.get(category, ""),
        )

    def _missing(self, video: str) -> pathlib.Path:
        return files.resolve_inside(self.source, f"{_REAL if video[:1].isdigit() else _SYNTHETIC}/{video}.mp4")

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """Of each video it is asked whether its objects are there (yes), and whether a suona is (no)."""
        lists = {split: [] for split in tables.SPLITS}
        own_names = {name: own for own, name in class_names.MUSIC_AVQA.items()}
        for number, clip in enumerate(example_files.world(num_clips, seed)):
            video = f"{number:08d}"
            example_files.write_video(folder / _REAL / f"{video}.mp4", clip)
            asked = [(example_files.class_for(one.name, F_MUSIC_CLASSES), "yes") for one in clip.objects]
            for name, answer in (*asked, ("suona", "no")):
                lists[example_files.split_of(number)].append({
                    "video_id": video,
                    "question_id": sum(map(len, lists.values())),
                    "type": '["Visual", "Existential"]',
                    "question_content": "Is there a <Object> in the entire video?",
                    "templ_values": json.dumps([own_names.get(name, name)]),
                    "question_deleted": 0,
                    "anser": answer,
                })  # fmt: skip
        for split, questions in lists.items():
            example_files.write_json(folder / f"avqa-{split}.json", questions)


def _read(question: dict, where: str) -> tuple[str, set[str]]:
    """The video of a question, and the instruments that it tells of, by f-Music's names."""
    try:
        video, text, answer = (question[key] for key in ("video_id", "question_content", "anser"))
        values = json.loads(question["templ_values"])
        words = {class_names.f_music_name(value) for value in values}
        answer = answer.strip()
        text = text.strip()
        deleted = bool(question.get("question_deleted"))
        if not isinstance(video, str) or not video:
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{where}: wanted video_id, question_content, templ_values and anser: get the file again"
        ) from None
    if text.startswith("How many"):
        told = answer != "zero"
    elif text.startswith(("Is there", "Are there")) or text.endswith("always playing?"):
        told = answer == "yes"
    else:
        told = True
    words = (words if told else set()) | {class_names.f_music_name(answer)}
    return video, set() if deleted else words & set(F_MUSIC_CLASSES)
