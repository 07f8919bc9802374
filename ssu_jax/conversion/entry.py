"""What the converter knows of one published model: its table, its sizes, how it is built and run."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssu_jax.conversion.rules import Shape, Table

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the catalogue; a module of conversion/tables/ holds it as ENTRY.

    kind:          its name on the command line and in converted folders, e.g. "pvt_v2".
    table:         our config -> rules of names.
    read_config:   (published config.json or {}, name -> shape of the published tensors) -> our config.
    write_config:  our config -> what a published folder's config.json says.
    build:         our config -> the Flax module, float32; `apply` gives a dict of named features.
    example:       (our config, generator) -> arguments of `apply` as NumPy arrays, small.
    reference:     (published folder, those arguments) -> the same features from the published implementation, where a
                   package has one (imported inside); None where none has.
    tokenizer:     published folder -> text of a tokenizer.json that goes with the weights, "" where there is none.
    """

    kind: str
    table: Callable[[Any], Table]
    read_config: Callable[[Mapping[str, Any], Mapping[str, Shape]], Any]
    write_config: Callable[[Any], dict[str, Any]]
    build: Callable[[Any], Any]
    example: Callable[[Any, np.random.Generator], tuple[np.ndarray, ...]]
    reference: Callable[[pathlib.Path, tuple[np.ndarray, ...]], Arrays] | None = None
    tokenizer: Callable[[pathlib.Path], str] | None = None
