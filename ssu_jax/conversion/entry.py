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
    write_config:  our config -> what a published folder's config.json says; {} where there is no such file.
    build:         our config -> the Flax module, float32; `apply` gives a dict of named features. None for a table of
                   names alone, which then says its `shapes`.
    example:       (our config, generator) -> arguments of `apply` as NumPy arrays, small.
    reference:     (published folder, those arguments) -> the same features from the published implementation, where a
                   package has one (imported inside); None where none has. For weights that are one file the place
                   is that file.
    tokenizer:     published folder, or the vocabulary file that --tokenizer names -> text of a tokenizer.json that
                   goes with the weights, "" where there is none.
    config_type:   class of our config: its folder's config.json is read back with it.
    caveat:        our config -> what readers of the published layout must know of weights written back, "" for nothing.
    shapes:        our config -> our path -> shape, where there is no module to ask.
    """

    kind: str
    table: Callable[[Any], Table]
    read_config: Callable[[Mapping[str, Any], Mapping[str, Shape]], Any]
    write_config: Callable[[Any], dict[str, Any]]
    build: Callable[[Any], Any] | None = None
    example: Callable[[Any, np.random.Generator], tuple[np.ndarray, ...]] | None = None
    reference: Callable[[pathlib.Path, tuple[np.ndarray, ...]], Arrays] | None = None
    tokenizer: Callable[[pathlib.Path], str] | None = None
    config_type: type | None = None
    caveat: Callable[[Any], str] = lambda config: ""
    shapes: Callable[[Any], Mapping[str, Shape]] | None = None
