"""Pictures of expert layers: which experts serve what, and their load in the course of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ssu_jax.visualization import plots

FEW_WORDS = 5.0  # expected words of a cell below which its lift tells nothing (the chi-squared test's rule)
MOST_LIFT = 3.0  # colours end at 8 times and an eighth of the even share
_COLOURS = "RdBu_r"
_LEVEL_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#937860")
_TOLD_CELLS = 16  # experts up to which every cell has its number
_TITLES = {"kind": "seconds by what sounds", "class": "seconds by class in the picture"}


def expert_use(
    groups: Sequence[str], layer: dict[str, Any], words: Sequence[int], title: str
) -> UInt8[np.ndarray, "y x 3"]:
    """One expert layer: load, lift of every kind and class, and what led the router, experts from left to right.

    groups: "all", "kind/...", "class/...".  layer: load [e], lift [g][e] and levels {name: [e]}, None where unknown
    (expert_use.as_dict).  words: of every group; a group without any is left out.
    """
    rows = {
        kind: [n for n, group in enumerate(groups) if group.startswith(f"{kind}/") and words[n]] for kind in _TITLES
    }
    rows = {kind: numbers for kind, numbers in rows.items() if numbers}
    load = np.array(layer["load"], float)
    lift = np.array(layer["lift"], float)
    few = np.array(words, float)[:, None] * load[None] < FEW_WORDS
    heights = [1.1, *(0.3 * len(numbers) + 0.1 for numbers in rows.values()), 1.9]
    cell = 0.62 if len(load) <= _TOLD_CELLS else 0.17 if len(load) <= 96 else 0.09
    figure = plots.figure(max(7.5, 3.4 + cell * len(load)), sum(heights) + 0.45 * len(heights) + 0.6)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    figure.suptitle(title, fontsize=11)
    _draw_load(axes[0], load)
    for axis, (kind, numbers) in zip(axes[1:-1], rows.items(), strict=True):
        names = [f"{groups[n].partition('/')[2]} ({words[n]})" for n in numbers]
        drawn = _draw_lift(axis, np.where(few, np.nan, lift)[numbers], names)
        axis.set_title(f"{_TITLES[kind]} (words): share over the expert's share of all words", fontsize=9)
    if rows:
        _scale(figure, drawn, list(axes[1:-1]), "times its share (grey: too few words)")
    _draw_levels(axes[-1], layer["levels"])
    axes[-1].set_xlabel("expert")
    axes[-1].set_xticks(range(0, len(load), max(1, len(load) // 32)))
    axes[-1].set_xlim(-0.5, len(load) - 0.5)
    return plots.pixels(figure)


def load_over_time(steps: Sequence[int], load: np.ndarray) -> UInt8[np.ndarray, "y x 3"]:
    """Load of every expert [steps, l, e] over the logged steps: a strip a layer, a row an expert, red where busy."""
    num_layers, num_experts = load.shape[1:]
    height = min(max(0.22 * num_experts, 0.9), 4.0)
    figure = plots.figure(8.0, (height + 0.5) * num_layers + 0.6)
    axes = figure.subplots(num_layers, 1, sharex=True, squeeze=False)[:, 0]
    edges = [steps[0] - 1, *steps] if len(steps) > 1 else [0, steps[0]]
    lift = _colour_of(load * num_experts)
    for layer, axis in enumerate(axes):
        drawn = axis.pcolormesh(
            edges, np.arange(num_experts + 1) - 0.5, lift[:, layer].T, cmap=_COLOURS, vmin=-MOST_LIFT, vmax=MOST_LIFT
        )
        axis.set_ylim(num_experts - 0.5, -0.5)
        axis.set_yticks(range(0, num_experts, max(1, num_experts // 8)))
        axis.set_ylabel("expert")
        axis.set_title(f"block {layer}: share of the words over the even share", fontsize=9)
    axes[-1].set_xlabel("step")
    _scale(figure, drawn, list(axes), "times its share")
    return plots.pixels(figure)


def _draw_load(axis: Any, load: np.ndarray) -> None:
    axis.bar(range(len(load)), 100 * load, color="#6b7280", width=0.8)
    axis.axhline(100 / len(load), color="black", linewidth=0.8, linestyle="--")
    axis.set_ylabel("% of words")
    axis.set_title(f"load: busiest {load.max() * len(load):.2f} times the even share (dashed)", fontsize=9)


def _draw_lift(axis: Any, lift: np.ndarray, names: Sequence[str]) -> Any:
    colour = _colour_of(lift)
    axis.set_facecolor("#d1d5db")
    drawn = axis.imshow(colour, cmap=_COLOURS, vmin=-MOST_LIFT, vmax=MOST_LIFT, aspect="auto", interpolation="none")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    if lift.shape[1] <= _TOLD_CELLS:
        for row, expert in zip(*np.nonzero(np.isfinite(lift)), strict=True):
            ink = "white" if abs(colour[row, expert]) > 0.65 * MOST_LIFT else "black"
            axis.text(expert, row, f"{lift[row, expert]:.2g}", ha="center", va="center", fontsize=8, color=ink)
    return drawn


def _colour_of(lift: np.ndarray) -> np.ndarray:
    """Octaves; nothing at all is the end of the scale, not a hole in the picture. NaN stays."""
    return np.log2(np.maximum(lift, 2.0**-MOST_LIFT))


def _draw_levels(axis: Any, levels: dict[str, Sequence[float | None]]) -> None:
    """Bars on each other, what speaks for the expert above zero, what speaks against it below."""
    above = below = np.zeros(len(next(iter(levels.values()))))
    for (name, values), colour in zip(levels.items(), _LEVEL_COLOURS, strict=True):
        part = np.nan_to_num(np.array(values, float))
        bottom = np.where(part > 0, above, below)
        axis.bar(range(len(part)), part, bottom=bottom, color=colour, width=0.8, label=name)
        above, below = above + np.maximum(part, 0), below + np.minimum(part, 0)
    axis.plot(range(len(above)), above + below, "k_", markersize=8, label="sum")
    axis.axhline(0, color="black", linewidth=0.6)
    axis.ticklabel_format(axis="y", scilimits=(-2, 3))
    axis.set_ylabel("logit")
    axis.set_title("what led the router here: its logit over the mean of all experts, by level", fontsize=9)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _scale(figure: Any, drawn: Any, axes: list, label: str) -> None:
    """A colour bar in times, not in logarithms."""
    bar = figure.colorbar(drawn, ax=axes, label=label, aspect=30, pad=0.02)
    ticks = np.arange(-MOST_LIFT, MOST_LIFT + 1)
    bar.set_ticks(ticks, labels=[f"{2**tick:g}" if tick >= 0 else f"1/{2**-tick:g}" for tick in ticks])
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)
