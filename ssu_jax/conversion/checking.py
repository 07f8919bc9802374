"""The published implementation and ours on the same input: how far apart their features are."""

import contextlib
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from ssu_jax.checkpoint import pretrained
from ssu_jax.config import stored
from ssu_jax.conversion import catalogue
from ssu_jax.types import UserError

TOLERANCE = 2e-5  # largest absolute difference, float32


class Comparison(NamedTuple):
    """differences: published feature -> largest absolute difference, inf where ours lacks it, has another shape or NaN.

    ours_alone: features that the published implementation does not give, such as classes taken from its logits.
    """

    differences: dict[str, float]
    ours_alone: tuple[str, ...]

    @property
    def largest(self) -> float:
        """Of all features."""
        return max(self.differences.values())


def compare(folder: pathlib.Path, published: pathlib.Path, seed: int = 0) -> Comparison:
    """Both models on the same random input.

    folder: converted weights. published: what they were made from. seed: of the random input. Raises UserError where
    no package has the published implementation, or it is not installed.
    """
    kind = pretrained.read_kind(folder)
    entry = catalogue.entry_of(kind)
    if entry.reference is None or entry.build is None:
        raise UserError(f"no published implementation to check {kind} against: no package holds one")
    tree, params = pretrained.read_pretrained(folder, kind)
    config = stored.from_dict(entry.config_type, tree, folder)
    example = entry.example(config, np.random.default_rng(seed))
    theirs = _published_features(entry, published, example)
    ours = jax.device_get(jax.jit(entry.build(config).apply)({"params": params}, *example))
    found = {name: _difference(ours.get(name), feature) for name, feature in theirs.items()}
    return Comparison(found, tuple(name for name in ours if name not in theirs))


def _published_features(entry, published: pathlib.Path, example: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    with contextlib.suppress(ImportError):
        from transformers.utils import logging

        logging.disable_progress_bar()  # it has one for reading the weights, on a terminal or not
        logging.set_verbosity_error()  # and a table of what it had no use for, such as a classifier
    try:
        return entry.reference(published, example)
    except ImportError as error:
        raise UserError(f"--check needs the published model ({error}): pip install ssu_jax[convert]") from error
    except (OSError, ValueError, RuntimeError) as error:  # what transformers raises at a folder that it cannot take
        first = str(error).strip().split("\n")[0]
        raise UserError(f"--check: the published implementation cannot read {published}: {first}") from error


def _difference(ours: np.ndarray | None, theirs: np.ndarray) -> float:
    if ours is None or ours.shape != theirs.shape:
        return float("inf")
    largest = float(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")
