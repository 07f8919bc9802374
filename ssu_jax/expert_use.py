"""Which experts serve which class, which kind of second, and what led the router to them.

The reference sentences are read word by word with the model's own masks (no true ones), and the experts of every word
are counted: [EOS] counts as one, so a silent second has one word. The shares of a group of words stand beside those of
all words: *lift* is the one over the other, 1 where an expert serves the group no more than the rest.

The router's logit is linear in its input but for the input's length, so of every word it falls exactly into what the
token, the scene, the region and the frame bring (prompted_experts.py). A softmax sees only differences: told is how far
each part lifts the chosen expert above the mean of all, in the mean over its words. In the two-step choice that is the
choice inside the group; the group is the scene's alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssu_jax import models
from ssu_jax.config import Config
from ssu_jax.data import pipeline
from ssu_jax.layers.moe.experts import in_order, unit_rms_product
from ssu_jax.types import Batch, UserError

KINDS = ("seen sound", "seen and off-screen sound", "off-screen sound", "silence")
LEVELS = ("token", "scene", "region", "frame")  # the router's input, in order


class ExpertUse(NamedTuple):
    """Counts of one split; `as_dict` makes shares of them.

    groups: names of g groups of words, "all" first, then kinds of second ("kind/..."), then classes that sound in the
    picture ("class/..."; a second with two of them counts for both).
    """

    groups: tuple[str, ...]
    counts: np.ndarray  # int64 [l, g, e]: words that expert e served (each of a word's top_k counts), l layers
    lifts: np.ndarray  # float64 [l, e, 4]: logit over the mean of all experts by LEVELS, summed over words


def check(config: Config) -> None:
    """Raises UserError for a model without a choice between experts."""
    model = config.model
    missing = {
        f"config.family is {config.family}": config.family != "ssuformer",
        "model.mohe is off": not model.mohe,
        "model.seg_only is set": model.seg_only,
        "model.moe.num_experts is 1": model.moe.num_experts == 1,
    }
    if reasons := [reason for reason, holds in missing.items() if holds]:
        raise UserError(f"--routing shows experts, {config.name} has none to choose from ({reasons[0]}): leave it out")


def look(
    params: Any,
    config: Config,
    tokenizer: Any,
    *,
    directory: str,
    split: str,
    batch_size: int,
    num_clips: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ExpertUse:
    """Counts over the first `num_clips` records (0: all) of a split; arguments as `evaluation.evaluate`.

    Raises UserError: no experts, no such split, classes that the config does not name, damaged records.
    """
    check(config)
    names = ("all", *(f"kind/{kind}" for kind in KINDS), *(f"class/{name}" for name in config.data.classes))
    choices_of = jax.jit(make_choices(models.build(config)))
    counts, lifts, done = 0, 0.0, 0
    total = len(pipeline.open_source(directory, split, config.data))
    for batch in pipeline.eval_batches(config, tokenizer, split, batch_size, num_clips, directory):
        ids, lifted = map(np.asarray, choices_of(params, batch))
        of_batch = counted(ids, lifted, groups_of(batch), config.model.moe.num_experts)
        counts, lifts = counts + of_batch[0], lifts + of_batch[1]
        done += int((np.asarray(batch.record) >= 0).sum())
        if progress:
            progress(done, min(num_clips or total, total))
    return ExpertUse(names, counts, lifts)


def make_choices(model: Any) -> Callable[[Any, Batch], tuple[Int[Array, "layers s k"], Float[Array, "layers s k 4"]]]:
    """(params, batch) -> the experts of every word (e: padding), and what each level adds to their logits."""

    def choices(params, batch):
        inside = model.apply({"params": params}, batch, mutable=["intermediates"])[1]["intermediates"]
        ids, inputs, rows = (_by_layer(inside, name) for name in ("experts", "router_input", "router_rows"))
        return ids, jax.vmap(lifted)(ids, inputs, rows)

    return choices


def lifted(ids: Int[Array, "s k"], x: Float[Array, "s r"], rows: Float[Array, "e r"]) -> Float[Array, "s k 4"]:
    """Of the logit of each chosen expert, less the mean over experts: the parts by LEVELS, which sum to it exactly."""
    rows = rows - rows.mean(axis=0, keepdims=True)
    by_level = jnp.stack(jnp.split(rows, len(LEVELS), axis=1))  # [4, e, d]
    alone = jnp.einsum("pq,ped->peqd", jnp.eye(len(LEVELS)), by_level)  # a row of one level, zeros in the others
    logits = unit_rms_product(x, alone.reshape(-1, x.shape[1]))  # [s, 4 e]
    logits = logits.reshape(len(x), len(LEVELS), -1).transpose(0, 2, 1)
    return jnp.take_along_axis(logits, jnp.minimum(ids, len(rows) - 1)[..., None], axis=1)


def groups_of(batch: Batch) -> np.ndarray:
    """bool [g, b * t]: which frames belong to each group, in the order of `ExpertUse.groups`."""
    seen, audible = (np.asarray(labels).astype(bool).reshape(-1, labels.shape[-1])
                     for labels in (batch.source_labels, batch.audible_labels))  # fmt: skip
    is_seen, is_hidden = seen.any(axis=1), (audible & ~seen).any(axis=1)
    kinds = [is_seen & ~is_hidden, is_seen & is_hidden, ~is_seen & is_hidden, ~is_seen & ~is_hidden]
    return np.stack([np.ones_like(is_seen), *kinds, *seen.T])


def counted(ids: np.ndarray, lifts: np.ndarray, groups: np.ndarray, num_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(counts [l, g, e], lifts [l, e, 4]) of one batch: ids [l, s, k], lifts [l, s, k, 4], groups [g, frames].

    Words of a frame lie side by side. An id of `num_experts` is padding.
    """
    num_layers, num_frames, places = len(ids), groups.shape[1], num_experts + 1
    frame = np.repeat(np.arange(num_frames), ids[0].size // num_frames)
    counts, sums = [], []
    for layer in range(num_layers):
        chosen = ids[layer].reshape(-1)
        by_frame = np.bincount(frame * places + chosen, minlength=num_frames * places).reshape(num_frames, places)
        counts.append(groups.astype(np.int64) @ by_frame[:, :num_experts])
        parts = lifts[layer].reshape(-1, len(LEVELS)).T
        sums.append([np.bincount(chosen, part, minlength=places)[:num_experts] for part in parts])
    return np.stack(counts), np.stack(sums).transpose(0, 2, 1)


def as_dict(use: ExpertUse) -> dict[str, Any]:
    """What the JSON file holds; None where an expert or a group has no word.

    {"groups": [...], "layers": [{"load": [e], "max_load": x, "words": [g], "share": [g][e], "lift": [g][e],
    "levels": {"token": [e], ...}}]}: load is share[0], of all words; lift is share over load; levels in logits.
    """
    layers = []
    for counts, sums in zip(use.counts.astype(np.float64), use.lifts, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = counts / counts.sum(axis=1, keepdims=True)
            lift = share / share[:1]
            levels = sums / counts[0][:, None]
        layers.append({
            "load": _listed(share[0]),
            "max_load": float(share[0].max() * len(share[0])),
            "words": counts.sum(axis=1).astype(int).tolist(),
            "share": [_listed(row) for row in share],
            "lift": [_listed(row) for row in lift],
            "levels": {level: _listed(levels[:, number]) for number, level in enumerate(LEVELS)},
        })  # fmt: skip
    return {"groups": list(use.groups), "num_experts": use.counts.shape[2], "layers": layers}


def _by_layer(intermediates: dict, name: str) -> Array:
    """What expert layers left under a name, a row a layer; one leaf may hold several layers, stacked."""
    flat = flax.traverse_util.flatten_dict(intermediates, sep="/")
    leaves = [flat[path][0] for path in sorted(flat, key=in_order) if path.endswith(f"/{name}")]
    return jnp.concatenate([leaf.reshape(-1, *leaf.shape[-2:]) for leaf in leaves])


def _listed(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
