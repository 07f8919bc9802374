"""Dataclasses back from what a JSON file says of them."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from ssu_jax.types import UserError


def from_dict(cls: type, tree: Any, where: Any = "config") -> Any:
    """The inverse of `dataclasses.asdict` after JSON: lists become tuples, nested objects their dataclass.

    where: file or section, for messages. Raises UserError for a field that is unknown or missing.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: wanted the fields of a {cls.__name__}, got {tree!r:.60}")
    types, fields = typing.get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(set(tree) - set(fields)):
        raise UserError(f"{where}: unknown field {unknown[0]!r}, known are {', '.join(sorted(fields))}")
    values = {name: _value(types[name], value, f"{where}.{name}") for name, value in tree.items()}
    needed = {name for name, field in fields.items()
              if field.default is field.default_factory is dataclasses.MISSING}  # fmt: skip
    if missing := sorted(needed - set(values)):
        raise UserError(f"{where}: the field {missing[0]!r} is missing")
    return cls(**values)


def _value(wanted: Any, value: Any, where: str) -> Any:
    classes = [each for each in (wanted, *typing.get_args(wanted)) if dataclasses.is_dataclass(each)]
    if classes and value is not None:
        return from_dict(classes[0], value, where)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
