"""The figures of a split (`preparation/statistics.py`) as one picture of a few panels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ssu_jax.visualization import plots

_MOST_CLASSES, _MOST_WORDS = 40, 20
_SEEN, _UNSEEN, _SILENT, _PLAIN = "#dd8452", "#4c72b0", "#d1d5db", "#6b7280"


def split(title: str, found: Mapping[str, Any]) -> UInt8[np.ndarray, "y x 3"]:
    """Classes on the left; sources a second, mask areas, lengths of sentences and frequent words beside them."""
    names = list(found["classes"])[:_MOST_CLASSES]
    figure = plots.figure(13.0, max(7.0, 1.5 + 0.24 * len(names)))
    figure.suptitle(title, fontsize=12)
    panels = figure.subplot_mosaic([["classes", "sources", "masks"], ["classes", "lengths", "words"]])
    _classes(panels["classes"], {name: found["classes"][name] for name in names}, len(found["classes"]))
    _sources(panels["sources"], found["sources"])
    _areas(panels["masks"], found["masks"])
    _lengths(panels["lengths"], found["sentences"])
    _words(panels["words"], found["sentences"])
    for axis in panels.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        if not axis.patches:  # nothing to show: no scale either
            axis.set(xticks=[], yticks=[])
            axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", color=_PLAIN)
    return plots.pixels(figure)


def _classes(axis: Any, classes: Mapping[str, Any], number: int) -> None:
    places, left = np.arange(len(classes)), np.zeros(len(classes))
    for key, label, colour in (
        ("seconds_on_screen", "sounds in the picture", _SEEN),
        ("seconds_off_screen", "sounds off screen", _UNSEEN),
        ("seconds_silent", "silent in the picture", _SILENT),
    ):
        seconds = np.array([counts[key] for counts in classes.values()], float)
        axis.barh(places, seconds, left=left, color=colour, label=label, height=0.75)
        left += seconds
    axis.set_yticks(places, [f"{name} ({counts['clips']:,})" for name, counts in classes.items()])
    axis.set_ylim(max(len(classes), 1) - 0.5, -0.5)
    told = f"the {len(classes)} most frequent of {number} classes" if number > len(classes) else "classes"
    axis.set_title(f"{told} (clips)", fontsize=9)
    axis.set_xlabel("seconds", fontsize=8)
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, columnspacing=1.2)


def _sources(axis: Any, sources: Mapping[str, Any]) -> None:
    numbers = sorted({int(number) for kind in ("seen", "heard") for number in sources[kind]})
    for shift, kind, label, colour in (
        (-0.2, "seen", "in the picture", _SEEN),
        (0.2, "heard", "heard, off screen too", _UNSEEN),
    ):
        counts = np.array([sources[kind].get(str(number), 0) for number in numbers], float)
        axis.bar(np.array(numbers) + shift, 100 * counts / max(counts.sum(), 1), 0.38, color=colour, label=label)
    axis.set_xticks(numbers)
    axis.set_title("sources that sound at once: % of the seconds", fontsize=9)
    axis.legend(fontsize=8, frameon=False)


def _areas(axis: Any, masks: Mapping[str, Any]) -> None:
    frames, edges = np.array(masks["histogram"]["frames"], float), 100 * np.array(masks["histogram"]["edges"])
    last = int(np.flatnonzero(frames)[-1]) + 1 if frames.any() else len(frames)
    axis.bar(edges[:last], 100 * frames[:last] / max(frames.sum(), 1), np.diff(edges)[:last], align="edge", color=_SEEN)
    if masks["mean"] is not None:
        median = 100 * masks["quantiles"]["0.5"]
        axis.axvline(median, color="black", linewidth=0.8, linestyle="--", label=f"half of them: {median:.1f} %")
        axis.legend(fontsize=8, frameon=False)
    axis.set_xlabel("share of the frame, %", fontsize=8)
    axis.set_title(f"areas of the {masks['frames_with_mask']:,} masks that are not empty: % of them", fontsize=9)


def _lengths(axis: Any, sentences: Mapping[str, Any]) -> None:
    histogram = {int(length): count for length, count in sentences["words"]["histogram"].items()}
    shares = 100 * np.array([*histogram.values()], float) / max(sum(histogram.values()), 1)
    axis.bar([*histogram], shares, color=_PLAIN, width=0.85)
    axis.set_xlabel("words", fontsize=8)
    axis.set_title(f"lengths of the {sentences['sentences']:,} sentences: % of them", fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _words(axis: Any, sentences: Mapping[str, Any]) -> None:
    words = list(sentences["frequent_words"].items())[:_MOST_WORDS]
    axis.barh(range(len(words)), [count for _, count in words], color=_PLAIN, height=0.75)
    axis.set_yticks(range(len(words)), [word for word, _ in words])
    axis.set_ylim(max(len(words), 1) - 0.5, -0.5)
    axis.set_title(f"most frequent of {sentences['vocabulary']:,} words", fontsize=9)
