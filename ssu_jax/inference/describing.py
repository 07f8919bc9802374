"""Videos in, results on disk: what `ssu predict` runs."""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tqdm

from ssu_jax.data.survey import VideoInfo, survey
from ssu_jax.inference import outputs
from ssu_jax.inference.phrases import phrases_of
from ssu_jax.types import UserError

_NOT_FOR_REAL_VIDEO = (
    "note: described by the small model that ships, which was trained on a generated world of shapes and sounds, not "
    "on real video. For real video fetch published weights once: ssu weights get yamnet deeplab_v3"
)
_NO_REAL_WORDS = (
    "note: looked at by the small T-VSL that ships, which was trained on a generated world of shapes and sounds, not "
    "on real video: docs/tvsl.md says how to train one on AudioCLIP"
)
# Where no terminal redraws a bar, a line now and then.
_LINE_SECONDS = 15.0


def describe_videos(
    videos: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    only: str | None = None,
    model: str | None = None,
    checkpoint: str | None = None,
    published: Mapping[str, pathlib.Path] | None = None,
    text: str | None = None,
) -> None:
    """Describes every video into `out`/<its name>/ and says where the results lie.

    only: kinds of results with commas between, None for all that the model has. model: "late_fusion", "ssuformer",
    "tvsl", or None for what `checkpoint` holds, or the first whose weights are at hand (SSUFormer, where there is
    `text`). published: folders of late fusion's weights (see loading.load_published). text: words with commas between;
    only what they name is described. Raises UserError before any work for an unknown kind, two videos of one name, a
    file that is no sound video, unusable weights, words that the model does not know; later for a place that cannot be
    written.
    """
    asked = None if only is None else _kinds(only)
    if text is not None:
        phrases_of(text)
    folders = outputs.folders_for(videos, out)
    infos = [survey(video) for video in videos]
    predictor = _predictor(model, checkpoint, published, takes_text=text is not None)
    kinds = asked or predictor.kinds
    if lacking := [kind for kind in kinds if kind not in predictor.kinds]:
        raise UserError(f"--only {lacking[0]}: this model gives {', '.join(predictor.kinds)}; T-VSL has heat maps")
    for info, folder in zip(infos, folders, strict=True):
        described = predictor.predict(info, text=text)
        with _progress(info) as advance:
            outputs.write(described, folder, kinds, advance)
        written = [outputs.NAMES[kind] + ("/" if kind in outputs.FOLDERS else "") for kind in kinds]
        print(f"{info.path}: {info.num_seconds} s described in {folder}{os.sep} ({', '.join(written)})", flush=True)
        for note in described.notes:
            print(f"  note: {note}", flush=True)


def _predictor(
    model: str | None, checkpoint: str | None, published: Mapping[str, pathlib.Path] | None, takes_text: bool
) -> Any:
    from ssu_jax.inference import loading  # loads jax: not before the cheap checks
    from ssu_jax.inference.predictor import Predictor

    if model == "tvsl" or (not model and checkpoint and loading.family_of(checkpoint) == "tvsl"):
        from ssu_jax.inference.locator import SHIPPED, Locator

        if checkpoint in (None, SHIPPED):
            print(_NO_REAL_WORDS, file=sys.stderr, flush=True)
        return Locator.from_checkpoint(checkpoint)
    if model == "late_fusion" or published or (not (model or checkpoint or takes_text) and loading.has_published()):
        return Predictor.from_published(published)
    if not (model or checkpoint):
        print(_NOT_FOR_REAL_VIDEO, file=sys.stderr, flush=True)
    return Predictor.from_checkpoint(checkpoint)


def _kinds(only: str) -> list[str]:
    kinds = [kind.strip() for kind in only.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in outputs.KINDS]
    if unknown or not kinds:
        raise UserError(f"--only: {unknown[0] if unknown else only!r} is none of {', '.join(outputs.KINDS)}")
    return list(dict.fromkeys(kinds))


@contextlib.contextmanager
def _progress(info: VideoInfo) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, plain lines elsewhere; both count seconds of the video."""
    if sys.stderr.isatty():
        with tqdm.tqdm(total=info.num_seconds, unit="s", desc=info.path.name, dynamic_ncols=True) as bar:
            yield bar.update
        return
    done, start, said = 0, time.monotonic(), time.monotonic()

    def advance(seconds: int) -> None:
        nonlocal done, said
        done += seconds
        now = time.monotonic()
        if now - said > _LINE_SECONDS and done < info.num_seconds:
            left = (now - start) / done * (info.num_seconds - done)
            print(f"{info.path.name}: {done} of {info.num_seconds} s, {left:.0f} s left", file=sys.stderr, flush=True)
            said = now

    yield advance
