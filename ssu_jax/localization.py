"""Runs T-VSL over mixtures of a split and scores its heat maps, as a flat dictionary.

    locate(params, pictures, sound, classes [b, k]) -> (heat maps [b, k, y, x], probability of every class [b, u])

A heat map is enlarged to the pictures, cut to a mask, and compared with the region of its source (metrics/heat_maps.py
has the formulas). Mode "corrected" cuts at `tvsl.threshold`, and a success is an overlap above t. Mode "released" does
as T-VSL's evaluator: cut at heat 0.3, enlarged bicubic, and `ciou@t` is the mean overlap, whatever t.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from ssu_jax.config import Config
from ssu_jax.metrics import heat_maps
from ssu_jax.models import postprocess
from ssu_jax.types import Mixtures

Metrics = dict[str, float | int | str | None]
DETECTED = 0.5  # probability from which on a class is found
QUIET_SHARE = 0.02  # of the frame: a mask below it says that the word is not there
_RELEASED_CUT = 0.3
_SUCCESSES = (0.1, 0.3, 0.5)


def evaluate(
    locate: Callable,
    params: Any,
    config: Config,
    batches: Iterable[Mixtures],
    progress: Callable[[int], None] | None = None,
) -> Metrics:
    """Scores over all sources with a known region; None where there is none. Words are the true classes.

    ciou@t       share of sources whose mask overlaps its region by more than t (released: mean overlap)
    iou          mean overlap            auc   area under the success rate over t
    ap           mean over sources of the pixels' average precision
    cap, piap    of each mixture: mean average precision, in order, and in the best order of its maps
    found_ciou@t the same where words are not given: a source that detection does not find counts 0
    precision, recall      of detection, over all classes
    quiet        share of mixtures in which the map of a class neither seen nor heard covers less than 2 %
    source/n/.., class/NAME/ciou@0.3
    """
    table = _Table(config)
    for number, batch in enumerate(batches):
        rows = np.flatnonzero((batch.sources >= 0).all(axis=1)).tolist()
        wrong = _absent(batch.present, number)
        heats, detection = map(np.asarray, locate(params, batch.pictures, batch.sound,
                                                  np.concatenate([batch.sources, wrong[:, None]], axis=1)))  # fmt: skip
        for row in rows:
            table.add(batch, row, heats[row], detection[row], bool(wrong[row] >= 0))
        if progress:
            progress(len(rows))
    return table.scores()


def enlarged(heat: Float[np.ndarray, "k y x"], height: int, width: int, bicubic: bool = False) -> np.ndarray:
    """Heat maps at the size of a picture: bilinear; bicubic as T-VSL's release does."""
    if not bicubic:
        return postprocess.resize_probabilities(heat, height, width)
    maps = [Image.fromarray(np.float32(one)).resize((width, height), Image.Resampling.BICUBIC) for one in heat]
    return np.stack([np.asarray(one) for one in maps])


def cut(heat: Float[np.ndarray, "k y x"], config: Config) -> Shaped[np.ndarray, "k y x"]:
    """The masks of heat maps, by the mode of the configuration."""
    return heat > (_RELEASED_CUT if config.tvsl.mode == "released" else config.tvsl.threshold)


def _absent(present: Shaped[np.ndarray, "b u"], number: int) -> np.ndarray:
    """int32 [b]: of each mixture a class that is not there, another one from row to row; -1 where all are."""
    chosen = np.full(len(present), -1, np.int32)
    for row, there in enumerate(present):
        absent = np.flatnonzero(there == 0)
        if len(absent):
            chosen[row] = absent[(number * len(present) + row) % len(absent)]
    return chosen


class _Table:
    """What the mixtures leave behind, one entry a source or a mixture."""

    def __init__(self, config: Config):
        self.config, self.is_released = config, config.tvsl.mode == "released"
        self.overlaps: list[float] = []
        self.found_overlaps: list[float] = []
        self.precisions: list[float] = []
        self.labels: list[int] = []
        self.places: list[int] = []
        self.cap: list[float] = []
        self.piap: list[float] = []
        self.wrong_areas: list[float] = []
        self.detected = np.zeros(3, int)  # right, said, true
        self.num_mixtures = 0

    def add(self, batch: Mixtures, row: int, heats: np.ndarray, detection: np.ndarray, has_wrong: bool) -> None:
        sources, regions = batch.sources[row], batch.regions[row] > 0
        heats = enlarged(heats, *regions.shape[1:], bicubic=self.is_released)
        masks = cut(heats, self.config)
        if has_wrong:
            self.wrong_areas.append(float(masks[-1].mean()))
        said = detection > DETECTED
        self.detected += [said[sources].sum(), said.sum(), len(sources)]
        known = np.flatnonzero(batch.region_known[row])
        for place in known:
            overlap = heat_maps.ciou(masks[place], regions[place])
            self.overlaps.append(overlap)
            self.found_overlaps.append(overlap * said[sources[place]])
            self.precisions.append(heat_maps.average_precision(heats[place], regions[place]))
            self.labels.append(int(sources[place]))
            self.places.append(int(place))
        if len(known):
            self.cap.append(heat_maps.class_aware_ap(heats[known], regions[known]))
            self.piap.append(heat_maps.permutation_invariant_ap(heats[known], regions[known]))
        self.num_mixtures += 1

    def scores(self) -> Metrics:
        overlaps, found = np.array(self.overlaps), np.array(self.found_overlaps)
        right, said, true = self.detected
        metrics = {f"ciou@{t}": self._ciou(overlaps, t) for t in _SUCCESSES}
        mean = heat_maps.known_mean
        metrics |= {"iou": mean(overlaps), "auc": heat_maps.area_under_success(overlaps), "ap": mean(self.precisions),
                    "cap": mean(self.cap), "piap": mean(self.piap)}  # fmt: skip
        metrics |= {f"found_ciou@{t}": self._ciou(found, t) for t in _SUCCESSES}
        metrics |= {"precision": right / said if said else np.nan, "recall": right / true if true else np.nan,
                    "quiet": mean(np.array(self.wrong_areas) < QUIET_SHARE)}  # fmt: skip
        for place in range(max(self.places, default=-1) + 1):
            metrics[f"source/{place}/ciou@0.3"] = self._ciou(overlaps[np.array(self.places) == place], 0.3)
        for label in sorted(set(self.labels)):
            name = self.config.data.classes[label]
            metrics[f"class/{name}/ciou@0.3"] = self._ciou(overlaps[np.array(self.labels) == label], 0.3)
        metrics = {name: None if np.isnan(value) else float(value) for name, value in metrics.items()}
        return {**metrics, "num_sources": len(overlaps), "num_mixtures": self.num_mixtures}

    def _ciou(self, overlaps: np.ndarray, threshold: float) -> float:
        return heat_maps.known_mean(overlaps) if self.is_released else heat_maps.success_rate(overlaps, threshold)
