"""Any folder of videos, with no annotation: what unlabelled pre-training reads."""

import os
import pathlib

from ssu_jax import files
from ssu_jax.data.datasets import clip_videos, example_files, tables
from ssu_jax.data.datasets.clip_videos import ENDINGS, Piece, VideoLayout
from ssu_jax.data.datasets.layout import Item, Reading
from ssu_jax.types import Clip, UserError


class Raw(VideoLayout):
    """Every video below a folder, or those that a text file lists, cut into clips of 10 seconds.

    source:    the folder, or a text file with a path a line, relative to its own folder; "#" begins a remark.
    val_share: of the files (not of the clips) go to the split "val", by the hash of their path; the rest to "train".

    Masks, sentences and sources are unknown throughout. The headers are read to know the clips: a file that cannot
    be opened is one clip, whose fault is told.
    """

    name = "raw"
    title = "any folder of videos, without annotation"

    def __init__(self, source: pathlib.Path, reading: Reading = Reading(), val_share: float = 0.0):  # noqa: B008
        super().__init__(source, reading)
        self.val_share = val_share

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def folder(self) -> pathlib.Path:
        return self.source.parent if self.source.is_file() else self.source

    def items(self) -> list[Item]:
        paths = self._listed() if self.source.is_file() else self._found()
        if not paths:
            raise UserError(f"{self.source}: holds no videos ({', '.join(sorted(ENDINGS))}): name another folder")
        items = []
        for path, starts in zip(paths, clip_videos.starts_of(paths), strict=True):
            name = path.relative_to(os.path.realpath(self.folder)).as_posix()
            name = name.encode("utf-8", "backslashreplace").decode()  # names of another encoding
            split = tables.split_by_hash(name, self.val_share)
            items += [Item(f"{name}#{int(start):06d}", split, (path,), Piece(start)) for start in starts]
        return tables.in_order(items, self.source)

    def load(self, item: Item) -> Clip:
        return self.read(item)

    @classmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """The first two clips are the halves of one video; the others have their own."""
        clips = example_files.world(num_clips, seed)
        example_files.write_video(folder / "trips" / "long.mp4", *clips[:2])
        for number, clip in enumerate(clips[2:], 2):
            example_files.write_video(folder / f"short_{number:03d}.{('mkv', 'mp4')[number % 2]}", clip)

    def _found(self) -> list[pathlib.Path]:
        if not self.source.is_dir():
            raise UserError(f"{self.source}: no such folder: check --source")
        base, paths = pathlib.Path(os.path.realpath(self.source)), []
        for folder, below, names in os.walk(base):
            below[:] = sorted(name for name in below if not name.startswith("."))
            paths += [
                pathlib.Path(folder, name)
                for name in names
                if not name.startswith(".") and pathlib.PurePath(name).suffix.lower() in ENDINGS
            ]
        return sorted(paths)

    def _listed(self) -> list[pathlib.Path]:
        lines = [line.strip() for line in tables.read_text(self.source).splitlines()]
        return [files.resolve_inside(self.folder, line) for line in lines if line and not line.startswith("#")]
