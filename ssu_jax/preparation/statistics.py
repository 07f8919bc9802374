"""What a split holds, counted: classes, sources, masks, sentences; in memory that does not grow with the clips.

Everything but `seconds` is counted over valid seconds, and only where it is known (`Clip.masks_known` and so on).
"""

import collections
import json
import os
import pathlib
import re
import sys
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from ssu_jax import files
from ssu_jax.data import records, shards
from ssu_jax.preparation import statistics_table
from ssu_jax.types import Clip, UserError
from ssu_jax.visualization import statistics as drawn

AREA_STEPS = 10_000  # mask areas are kept to a ten-thousandth of the frame
AREA_BINS = 100  # of the histogram that is given out
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FREQUENT_WORDS = 30
_WORD = re.compile(r"\w+")  # as the tokenizer of the project takes sentences apart


def of_split(source: records.RecordSource) -> dict[str, Any]:
    """Reads every label of a split once; a bar on stderr where that is a terminal.

    Returns `Tally.figures` and "bytes", those of the shards.
    Raises UserError (exit code 78) for a damaged record.
    """
    tally = Tally()
    numbers = tqdm.tqdm(range(len(source)), desc=source.split, unit="clip", file=sys.stderr, disable=None)
    for number in numbers:
        tally.add(records.read(source, number, records.decode_labels, with_masks=True))
    return tally.figures() | {"bytes": sum(shard["num_bytes"] for shard in source.manifest["shards"])}


def report(
    directory: str | os.PathLike,
    split: str | None,
    *,
    json_path: str | os.PathLike | None = None,
    plots: str | os.PathLike | None = None,
) -> list[str]:
    """The lines of a table, one split or all of them after another.

    json_path: file for {"directory": ..., "splits": {name: figures}}; plots: folder for <split>.png.

    Raises UserError: no records, no such split, a damaged record (78), a place that cannot be written.
    """
    names = [split] if split else shards.splits_of(directory)
    if not names:
        raise UserError(f"{directory} holds no records: make some with `ssu prepare`, or name another directory")
    found = {name: of_split(records.RecordSource(directory, name)) for name in names}
    if json_path:
        told = {"directory": str(directory), "splits": found}
        files.atomic_write(json_path, json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for name in names if plots else ():
        with files.atomic_path(pathlib.Path(plots) / f"{name}.png") as temporary:
            Image.fromarray(drawn.split(f"{directory}, {name}", found[name])).save(temporary)
    return [line for name in names for line in [*statistics_table.lines(name, found[name]), ""]][:-1]


class Tally:
    """Counts clips as they come."""

    def __init__(self):
        self._totals = collections.Counter()
        self._clips = {
            name: collections.Counter()
            for name in ("datasets", "majors", "categories", "frame_sizes", "seconds_per_clip", "sample_rates")
        }
        self._classes = collections.defaultdict(collections.Counter)
        self._sources = {"seen": collections.Counter(), "heard": collections.Counter()}
        self._areas = np.zeros(AREA_STEPS + 1, np.int64)
        self._area_sum = 0.0
        self._lengths, self._words = collections.Counter(), collections.Counter()

    def add(self, clip: Clip) -> None:
        """Counts a clip, which needs no frames (`records.decode_labels`)."""
        t, rows, columns = clip.frames.shape[:3]
        self._totals.update(clips=1, seconds=t, valid_seconds=int(clip.valid.sum()))
        for name, value in (
            ("datasets", clip.dataset),
            ("majors", clip.major),
            ("categories", clip.category),
            ("frame_sizes", f"{rows} x {columns}"),
            ("seconds_per_clip", t),
            ("sample_rates", clip.sample_rate),
        ):
            self._clips[name][value] += 1
        self._add_sources(clip)
        self._add_masks(clip)
        self._add_sentences(clip)

    def _add_sources(self, clip: Clip) -> None:
        known = clip.valid & clip.sources_known
        self._totals["sources_known"] += int(known.sum())
        sounding = {True: [], False: []}
        by_class = collections.defaultdict(lambda: np.zeros((3, len(known)), bool))
        for item in clip.objects:
            flags = item.sounding & known
            sounding[item.on_screen].append(flags)
            seen, unseen, silent = by_class[item.name]
            if item.on_screen:
                seen |= flags
                silent |= known & ~item.sounding
            else:
                unseen |= flags
        for name, (seen, unseen, silent) in by_class.items():
            self._classes[name].update(
                clips=1,
                seconds_on_screen=int(seen.sum()),
                seconds_off_screen=int(unseen.sum()),
                seconds_silent=int((silent & ~seen & ~unseen).sum()),
            )
        on_screen = sum(sounding[True], np.zeros(len(known), int))
        heard = sum(sounding[False], on_screen)
        self._sources["seen"].update(on_screen[known].tolist())
        self._sources["heard"].update(heard[known].tolist())

    def _add_masks(self, clip: Clip) -> None:
        known = clip.valid & clip.masks_known
        for item in clip.objects:
            if item.on_screen and item.masks is None:  # it is somewhere in the picture
                known &= ~(item.sounding & clip.sources_known)
        pixels = [np.count_nonzero(mask) for mask in clip.sounding_masks[known]]  # many times faster than a mean
        areas = np.array(pixels, float) / (clip.frames.shape[1] * clip.frames.shape[2])
        self._totals.update(masks_known=len(areas), masks_empty=int((areas == 0).sum()))
        self._area_sum += float(areas.sum())
        np.add.at(self._areas, np.rint(areas[areas > 0] * AREA_STEPS).astype(int), 1)

    def _add_sentences(self, clip: Clip) -> None:
        known = clip.valid & clip.captions_known
        for t in np.flatnonzero(known).tolist():
            words = _WORD.findall(clip.captions[t].lower())
            self._lengths[len(words)] += 1
            self._words.update(words)
        self._totals["sentences_known"] += int(known.sum())

    def figures(self) -> dict[str, Any]:
        """JSON-able. Shares are of the known valid seconds, None where there are none.

        clips, seconds, valid_seconds; known_seconds of masks, sentences and sources;
        datasets, majors, categories, frame_sizes ("rows x columns"), seconds_per_clip, sample_rates: clips of each;
        classes: clips, seconds in which it sounds on and off screen, seconds in which it stands silent in the picture;
        sources: seconds with 0, 1, ... sources seen and heard, silent_share (none heard), silent_picture_share;
        masks: empty_share, and of the others mean, quantiles and histogram of the share of the frame that sounds;
        sentences: empty_share, and of the others their number, words of each, vocabulary, most frequent words.
        """
        totals = self._totals
        return {
            **{name: totals[name] for name in ("clips", "seconds", "valid_seconds")},
            "known_seconds": {name: totals[f"{name}_known"] for name in ("masks", "sentences", "sources")},
            **{name: _sorted(counts) for name, counts in self._clips.items()},
            "classes": {
                name: {key: counts[key] for key in sorted(counts)}
                for name, counts in sorted(self._classes.items(), key=lambda item: (-item[1]["clips"], item[0]))
            },
            "sources": {
                **{name: _sorted(counts) for name, counts in self._sources.items()},
                "silent_share": _share(self._sources["heard"][0], totals["sources_known"]),
                "silent_picture_share": _share(self._sources["seen"][0], totals["sources_known"]),
            },
            "masks": self._mask_figures(),
            "sentences": self._sentence_figures(),
        }

    def _mask_figures(self) -> dict[str, Any]:
        full = self._totals["masks_known"] - self._totals["masks_empty"]
        steps = np.arange(AREA_STEPS + 1)
        bins = np.minimum(steps * AREA_BINS // AREA_STEPS, AREA_BINS - 1)
        return {
            "empty_share": _share(self._totals["masks_empty"], self._totals["masks_known"]),
            "frames_with_mask": full,
            "mean": _share(self._area_sum, full),
            "quantiles": _quantiles(steps / AREA_STEPS, self._areas),
            "histogram": {
                "edges": (np.arange(AREA_BINS + 1) / AREA_BINS).tolist(),
                "frames": np.bincount(bins, self._areas, AREA_BINS).astype(int).tolist(),
            },
        }

    def _sentence_figures(self) -> dict[str, Any]:
        empty, known = self._lengths[0], self._totals["sentences_known"]
        lengths = {length: count for length, count in sorted(self._lengths.items()) if length}
        values, counts = np.array([*lengths], int), np.array([*lengths.values()], np.int64)
        return {
            "empty_share": _share(empty, known),
            "sentences": known - empty,
            "words": {
                "mean": _share(int(values @ counts), known - empty),
                "quantiles": _quantiles(values, counts),
                "histogram": {str(length): count for length, count in lengths.items()},
            },
            "vocabulary": len(self._words),
            # By name where the counts are equal, so that the same clips in another order give the same list.
            "frequent_words": dict(sorted(self._words.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]),
        }


def _sorted(counts: collections.Counter) -> dict[str, int]:
    """Numbers in their order, names by how often they occur."""
    key = (lambda item: item[0]) if all(isinstance(name, int) for name in counts) else lambda item: (-item[1], item[0])
    return {str(name): count for name, count in sorted(counts.items(), key=key)}


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _quantiles(values: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    """Of values that occur `counts` times, ascending: the smallest one that at least that share does not exceed."""
    if not counts.sum():
        return {str(share): None for share in QUANTILES}
    reached = np.cumsum(counts)
    places = np.searchsorted(reached, np.array(QUANTILES) * reached[-1] - 1e-9)
    return {str(share): values[place].item() for share, place in zip(QUANTILES, places, strict=True)}
