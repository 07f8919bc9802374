"""The built-in world as records, and a video of a few clips to look at."""

import dataclasses
import importlib.metadata
import sys

import tqdm

import ssu_jax
from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data import records, synthetic
from ssu_jax.preparation import splits
from ssu_jax.preparation.tasks import Execution
from ssu_jax.types import UserError
from ssu_jax.visualization import writer


@dataclasses.dataclass(frozen=True)
class _Make:
    """Clip `index` of a split of the world as a record; picklable."""

    seed: int
    split: str

    def __call__(self, index: int) -> bytes:
        return records.encode_clip(synthetic.make_clip(self.seed, self.split, index))


def prepare(directory, split: str, *, num_clips: int, seed: int, num_shards: int, execution: Execution,
            file_format: str = "tfrecord", overwrite: bool = False) -> dict:  # fmt: skip
    """Writes a split of the world and returns its manifest; the same bytes wherever it is carried out.

    Raises UserError for counts out of range, an existing split without `overwrite`, a place that cannot be written.
    """
    _check(split, num_clips)
    job = splits.Job(
        make=_Make(seed, split),
        items=range(num_clips),
        names=[f"clip {index}" for index in range(num_clips)],
        stamps=range(num_clips),
        classes=SYNTHETIC_CLASSES,
        source=_source(seed, split, num_clips),
    )
    return splits.prepare_split(
        directory, split, job, num_shards=num_shards, execution=execution, file_format=file_format, overwrite=overwrite
    )


def preview(path, split: str, *, num_clips: int, seed: int, plain: bool = False) -> None:
    """Writes the first clips of a split as a video with sound, masks and sentences; `plain`: with sound alone.

    Raises UserError as `prepare`.
    """
    _check(split, num_clips)
    clips = (synthetic.make_clip(seed, split, index) for index in range(num_clips))
    progress = tqdm.tqdm(clips, desc="preview", total=num_clips, unit="clip", file=sys.stderr, disable=None)
    write = writer.write_plain if plain else writer.write_preview
    write(path, iter(progress))


def _check(split: str, num_clips: int) -> None:
    if split not in synthetic.SPLITS:
        raise UserError(f"the world has no split {split!r}: wanted one of {', '.join(synthetic.SPLITS)}")
    if num_clips < 1:
        raise UserError(f"--num-clips must be at least 1, got {num_clips}")


def _source(seed: int, split: str, num_clips: int) -> dict:
    """What made the records, for the manifest: the same source gives the same bytes."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}
    return {"world": synthetic.VERSION, "seed": seed, "split": split, "num_clips": num_clips,
            "versions": {"ssu_jax": ssu_jax.__version__, **versions}}  # fmt: skip
