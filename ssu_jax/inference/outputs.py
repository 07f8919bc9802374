"""What `ssu predict` leaves behind: prediction.json, captions.vtt, masks/*.png, overlay.mp4.

T-VSL's words have masks/WORD/*.png and heat/WORD/*.png of their own, and a colour of their own in the overlay.

All is written second by second into a hidden folder beside the results and moved to its place, file by file,
when the last second is done: a stop half way, whatever its reason, leaves what was there before.
"""

import contextlib
import hashlib
import html
import json
import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from ssu_jax import files
from ssu_jax.inference import overlay_video
from ssu_jax.inference.described import Described, SecondPrediction
from ssu_jax.types import UserError

KINDS = ("json", "vtt", "masks", "heat", "overlay")
FOLDERS = ("masks", "heat")
_STAGING = ".partial-"
_LONGEST_NAME = 200  # bytes of a word's folder; file systems take 255
_MASK_NAME = re.compile(r"\d{5,}\.png")
NAMES = {"json": "prediction.json", "vtt": "captions.vtt", "masks": "masks", "heat": "heat", "overlay": "overlay.mp4"}


def folders_for(videos: Sequence[str | os.PathLike], out: str | os.PathLike) -> list[pathlib.Path]:
    """The folder of each video's results, OUT/<name without suffix>/.

    Raises UserError where two videos would share one, or where a result would replace a video itself.
    """
    folders: dict[str, tuple[pathlib.Path, str | os.PathLike]] = {}
    for video in videos:
        name = pathlib.Path(video).stem
        name = pathlib.Path(video).name if name.strip(".") == "" else name
        folder = pathlib.Path(out) / name
        # Some file systems know no difference between upper and lower case.
        if name.casefold() in folders:
            raise UserError(
                f"{folders[name.casefold()][1]} and {video} would both be described in {folder}: "
                "rename one, or run them with two --out"
            )
        folders[name.casefold()] = (folder, video)
        if (folder / NAMES["overlay"]).resolve() == pathlib.Path(video).resolve():
            raise UserError(f"{video} would be replaced by its own overlay: choose another --out")
    return [folder for folder, _ in folders.values()]


def write(
    described: Described,
    folder: str | os.PathLike,
    kinds: Sequence[str] = KINDS,
    advance: Callable[[int], Any] = lambda seconds: None,
) -> None:
    """Goes through the predictions and writes the chosen kinds of results into `folder`.

    advance: called with 1 after every second. Raises UserError when the place is full or cannot be written.
    """
    folder = pathlib.Path(folder)
    with files.writing(folder), _staging(folder) as staging:
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(_WRITERS[kind](staging / NAMES[kind], described)) for kind in kinds]
            for prediction in described.predictions:
                for add in sinks:
                    add(prediction)
                advance(1)
        _publish(staging, folder)


@contextlib.contextmanager
def _json(path: pathlib.Path, described: Described) -> Iterator[Callable[[SecondPrediction], None]]:
    """One line a second; masks as pycocotools' compressed run lengths."""
    info = described.info
    head = {
        "video": str(info.path),
        "width": info.width,
        "height": info.height,
        "duration_seconds": info.duration_seconds,
    }
    if described.text:
        head["text"] = described.text
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": [')

        def add(one: SecondPrediction) -> None:
            row = {"t": one.seconds, "caption": one.caption, "mask": _run_lengths(one.mask), "area": one.area,
                   "score": one.score}  # fmt: skip
            if one.words:
                row["words"] = [
                    {"word": word.word, "score": word.score, "box": word.box, "area": float(word.mask.mean()),
                     "mask": _run_lengths(word.mask)}
                    for word in one.words
                ]  # fmt: skip
            file.write(("," if one.second else "") + "\n" + json.dumps(row, ensure_ascii=False))

        yield add
        file.write(f'\n], "notes": {json.dumps(described.notes, ensure_ascii=False)}}}\n')


def _run_lengths(mask: np.ndarray) -> dict:
    counts = run_lengths.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
    return {"size": list(mask.shape), "counts": counts}


@contextlib.contextmanager
def _captions(path: pathlib.Path, described: Described) -> Iterator[Callable[[SecondPrediction], None]]:
    """WebVTT: one cue a second, none where nothing sounds."""
    info = described.info
    with open(path, "w", encoding="utf-8") as file:
        file.write("WEBVTT\n")

        def add(one: SecondPrediction) -> None:
            if one.caption:
                span = f"{_clock(one.second)} --> {_clock(info.end_of(one.second))}"
                file.write(f"\n{span}\n{html.escape(' '.join(one.caption.split()), quote=False)}\n")

        yield add


@contextlib.contextmanager
def _masks(path: pathlib.Path, described: Described) -> Iterator[Callable[[SecondPrediction], None]]:
    """00000.png, ...: 8-bit grey, 255 where a pixel sounds; WORD/00000.png of the single words."""
    path.mkdir()

    def add(one: SecondPrediction) -> None:
        _save(path, one.second, one.mask * 1.0)
        for word in one.words:
            _save(_folder_of(path, word.word), one.second, word.mask * 1.0)

    yield add


@contextlib.contextmanager
def _heat(path: pathlib.Path, described: Described) -> Iterator[Callable[[SecondPrediction], None]]:
    """WORD/00000.png, ...: 8-bit grey, 255 times the heat."""
    path.mkdir()

    def add(one: SecondPrediction) -> None:
        for word in one.words:
            _save(_folder_of(path, word.word), one.second, word.heat)

    yield add


def _folder_of(path: pathlib.Path, word: str) -> pathlib.Path:
    """Of a word, which may hold anything: what no file name should have is written as %XX, and a name that is longer
    than file systems take ends in a digest.
    """
    name = urllib.parse.quote(word, safe=" ").replace(".", "%2E")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(word.encode()).hexdigest()[:8]}"
    folder = path / name
    folder.mkdir(exist_ok=True)
    return folder


def _save(folder: pathlib.Path, second: int, values: np.ndarray) -> None:
    grey = np.rint(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / f"{second:05d}.png")


@contextlib.contextmanager
def _overlay(path: pathlib.Path, described: Described) -> Iterator[Callable[[SecondPrediction], None]]:
    with overlay_video.writing(path, described.info) as add_second:
        yield lambda one: add_second(one.second, one.mask, one.caption, _shown(one))


def _shown(one: SecondPrediction) -> list[tuple[str, np.ndarray]]:
    return [(word.word, word.mask) for word in one.words if word.box is not None]


_WRITERS = {"json": _json, "vtt": _captions, "masks": _masks, "heat": _heat, "overlay": _overlay}


@contextlib.contextmanager
def _staging(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder in `folder`, gone afterwards; folders that were made for nothing go as well."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    files.make_folder(folder)
    _remove_leftovers(folder)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=folder))
    try:
        yield staging
    except UserError as error:  # the hidden name means nothing to the user
        raise UserError(str(error).replace(str(staging), str(folder)), error.exit_code) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for one in missing:
            with contextlib.suppress(OSError):  # not empty: it holds results
                one.rmdir()


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Takes away what runs left that were killed here; those that still run are let be."""
    for left in folder.glob(f"{_STAGING}*"):
        owner = left.name.removeprefix(_STAGING).partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(staging: pathlib.Path, folder: pathlib.Path) -> None:
    """Moves every file to its place; masks of an earlier, longer video go."""
    sources = [one for one in sorted(staging.rglob("*")) if one.is_file()]
    targets = [folder / one.relative_to(staging) for one in sources]
    for source, target in zip(sources, targets, strict=True):
        files.make_folder(target.parent)
        os.replace(source, target)
    kept = set(targets)
    for name in FOLDERS:
        if not (staging / name).is_dir():
            continue
        for old in (folder / name).rglob("*.png"):
            if old not in kept and _MASK_NAME.fullmatch(old.name):
                old.unlink()
        for words in (folder / name).glob("*/"):
            if not any(words.iterdir()):
                words.rmdir()


def _clock(seconds: float) -> str:
    """hh:mm:ss.mmm, as WebVTT writes time."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{thousandths:03d}"
