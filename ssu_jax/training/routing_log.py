"""How the log tells of expert layers: names of their figures, and a warning when experts collapse.

An expert is *starved* when it gets less than STARVED of its even share of the assignments over WINDOW logged steps.
It learns from next to nothing then, so it is chosen even less: that does not heal by itself, and the layer pays for
weights that it does not use. One starved expert of many is a loss of that one alone; a layer *collapses*

* when MOST_STARVED of its experts are starved: what is left is a model with so much fewer experts, or
* when one expert is HOTTEST times as busy as the mean: its device is what all others of the mesh wait for (of 64
  experts on 64 devices one ten times as hot makes a step three times as long, Marin's log), and with a capacity all
  beyond the factor is dropped.

Steps are added up because a step alone is noisy. Of an even router an expert whose share is 20 tokens in all gets fewer
than 2 of them once in 10^7 windows; where the share is 4 tokens, 2 % of the experts look starved, not a quarter.
"""

import collections
import itertools
from typing import Any

import numpy as np

STARVED = 0.1
WINDOW = 5
MOST_STARVED = 0.25
HOTTEST = 8.0

REMEDY = (
    "raise losses.balance, set model.moe.balancing_rate (0.001) or model.moe.router_noise (1.0), or take fewer experts"
)
PREFIX = "router/"


def rows(router: dict[str, Any]) -> dict[str, Any]:
    """{"load": [l, e], "entropy": [l], ...} -> {"router/block_0/load": [...], "router/block_0/entropy": ..., ...}."""
    return {
        f"{PREFIX}block_{layer}/{name}": value
        for name, values in router.items()
        for layer, value in enumerate(np.asarray(values))
    }


def load_in(row: dict[str, Any]) -> np.ndarray | None:
    """The load [l, e] in a row of the log; None where it holds none."""
    layers = itertools.takewhile(lambda name: name in row, (f"{PREFIX}block_{n}/load" for n in itertools.count()))
    load = [row[name] for name in layers]
    return np.array(load, np.float64) if load else None


class CollapseWatch:
    """Told of every logged step, it answers with lines: once when a layer collapses, again after it had recovered."""

    def __init__(self):
        self._window: collections.deque = collections.deque(maxlen=WINDOW)
        self._collapsed: set[int] = set()

    def lines(self, step: int, load: np.ndarray) -> list[str]:
        """load: float [l, e], shares of the assignments that sum to 1 in a row."""
        self._window.append((step, np.asarray(load, np.float64)))
        if len(self._window) < WINDOW or load.shape[1] == 1:
            return []
        relative = np.mean([shares for _, shares in self._window], axis=0) * load.shape[1]
        told = []
        for layer, share in enumerate(relative):
            starved, hottest = int((share < STARVED).sum()), float(share.max())
            severity = max(starved / len(share) / MOST_STARVED, hottest / HOTTEST)
            if severity >= 1 and layer not in self._collapsed:
                self._collapsed.add(layer)
                told.append(
                    f"warning: the experts of block {layer} collapse: {starved} of {len(share)} get less than "
                    f"{STARVED:g} of their even share over steps {self._window[0][0]} to {step}, the busiest "
                    f"{hottest:.1f} times its share: {REMEDY}"
                )
            elif severity < 0.5 and layer in self._collapsed:  # not at once: near the bound it would come and go
                self._collapsed.remove(layer)
                told.append(f"the experts of block {layer} are in use again at step {step}")
        return told
