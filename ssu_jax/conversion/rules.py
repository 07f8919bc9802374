"""Tables of names: a published tensor <-> ours, both ways, with everything that does not fit reported at once.

A rule holds two templates of names and the name of a transform:

    Rule("encoder.layers.{i}.mlp.fc1.weight", "block_{i}/mlp/fc1/kernel", "dense")

`{i}` stands for a number and means the same number on both sides; any field name will do, and several may stand
in one name. A transform is a pair of inverse functions of one array, so a round trip is exact to the bit.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssu_jax.types import UserError

Shape = tuple[int, ...]


class Transform(NamedTuple):
    """Published array -> ours, and back."""

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


def permutation(*axes: int) -> Transform:
    """Axis i of ours is axis axes[i] of the published one."""
    inverse = np.argsort(axes)
    return Transform(lambda x: x.transpose(axes), lambda x: x.transpose(inverse))


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(lambda x: x, lambda x: x),
    "dense": permutation(1, 0),  # [out, in] -> [in, out]
    "conv": permutation(2, 3, 1, 0),  # [out, in, y, x] -> [y, x, in, out]; depthwise [c, 1, y, x] -> [y, x, 1, c]
    "conv1d": permutation(2, 1, 0),  # [out, in, x] -> [x, in, out]
    "pointwise": Transform(lambda x: x.squeeze((0, 1)), lambda x: x[None, None]),  # [1, 1, in, out] -> [in, out]
    "vector": Transform(lambda x: x.squeeze(0), lambda x: x[None]),  # [1, n] -> [n]
}


class Rule(NamedTuple):
    """One line of a table."""

    pattern: str  # template of the published name
    path: str  # template of ours, "block_{i}/mlp/fc1/kernel"
    transform: str = "same"


class Ignored(NamedTuple):
    """A published tensor without use here (position numbers, batch counters, classifiers): known, and left out."""

    pattern: str


Table = tuple[Rule | Ignored, ...]


class Match(NamedTuple):
    """A published name, our path and the transform between."""

    name: str
    path: str
    transform: str


def match(table: Table, names: Iterable[str]) -> tuple[list[Match], list[str]]:
    """Published names -> (matches, names that no rule knows). Ignored ones are in neither."""
    matches, unknown = [], []
    for name in names:
        found = _first((rule, _regex(rule.pattern).fullmatch(name)) for rule in table)
        if found is None:
            unknown.append(name)
        elif isinstance(found[0], Rule):
            matches.append(Match(name, found[0].path.format(**found[1].groupdict()), found[0].transform))
    return matches, unknown


def match_back(table: Table, paths: Iterable[str]) -> tuple[list[Match], list[str]]:
    """Our paths -> (matches, paths that no rule knows)."""
    matches, unknown = [], []
    rules = [rule for rule in table if isinstance(rule, Rule)]
    for path in paths:
        found = _first((rule, _regex(rule.path).fullmatch(path)) for rule in rules)
        if found is None:
            unknown.append(path)
        else:
            matches.append(Match(found[0].pattern.format(**found[1].groupdict()), path, found[0].transform))
    return matches, unknown


def plan(table: Table, published: Mapping[str, Shape], wanted: Mapping[str, Shape], where: Any) -> list[Match]:
    """The matches that fill `wanted` (our path -> shape) from `published` (name -> shape), each exactly once.

    Raises UserError that lists every unused, missing, doubled or wrong-shaped tensor at once.
    """
    matches, unknown = match(table, published)
    problems = [f"{name} {published[name]}: no rule knows it" for name in unknown]
    filled: dict[str, str] = {}
    for name, path, transform in matches:
        if path not in wanted:
            problems.append(f"{name} {published[name]}: the model has no {path}")
        elif path in filled:
            problems.append(f"{name}: {path} is filled by {filled[path]} already")
        elif (shape := shape_after(published[name], transform)) != tuple(wanted[path]):
            problems.append(f"{name} {published[name]}: {path} wants {tuple(wanted[path])}, this gives {shape}")
        filled.setdefault(path, name)
    problems += [f"{path} {tuple(wanted[path])}: nothing fills it" for path in sorted(wanted.keys() - filled.keys())]
    if problems:
        raise MisfitError(where, problems)
    return matches


class MisfitError(UserError):
    """Tensors and a table that do not go together: all problems at once, in one line and as a list."""

    def __init__(self, where: Any, problems: list[str]):
        super().__init__(f"{where}: {len(problems)} tensors do not fit: " + "; ".join(problems))
        self.where, self.problems = where, problems


def shape_after(shape: Shape, transform: str) -> Shape:
    """The shape that a transform gives; no data is touched. () where the number of axes does not fit."""
    return _shape_of(TRANSFORMS[transform].forward, shape)


def shape_before(shape: Shape, transform: str) -> Shape:
    """The published shape behind one of ours: the inverse of `shape_after`."""
    return _shape_of(TRANSFORMS[transform].backward, shape)


def _shape_of(function: Callable[[np.ndarray], np.ndarray], shape: Shape) -> Shape:
    try:
        return function(np.lib.stride_tricks.as_strided(np.zeros(()), shape, (0,) * len(shape))).shape
    except ValueError:
        return ()


def _first(candidates):
    return next(((rule, found) for rule, found in candidates if found), None)


@functools.cache
def _regex(template: str) -> re.Pattern:
    """A template with {fields} as a regular expression with a named group for each; a field is a number."""
    seen: set[str] = set()

    def group(field: re.Match) -> str:
        name = field.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return rf"(?P<{name}>\d+)"

    escaped = re.sub(r"\\\{(\w+)\\\}", r"{\1}", re.escape(template))
    return re.compile(re.sub(r"\{(\w+)\}", group, escaped))
