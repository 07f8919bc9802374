"""`option`: a dataclass field that carries its meaning and its range, and the walk that checks them."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any


def option(
    default: Any,
    doc: str,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    choices: tuple = (),
    may_be_empty: bool = False,
):
    """A dataclass field with a default, a one-line meaning (unit included) and an inclusive range.

    may_be_empty: of a tuple, whether it may hold nothing.
    """
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "may_be_empty": may_be_empty}
    return dataclasses.field(default=default, metadata=metadata)


def problems_of(tree: Any, prefix: str = "") -> list[str]:
    """Every field of a dataclass tree that is not finite, out of range or not among its choices."""
    problems = []
    for field in dataclasses.fields(tree):
        value, name = getattr(tree, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            problems += problems_of(value, name + ".")
            continue
        absent = field.metadata.get("may_be_empty") and value == ()
        problem = "" if absent else _wrong_type(value, field.type) or _problem(value, field.metadata)
        if problem:
            problems.append(f"{name} {problem}, got {value!r}")
    return problems


def describe(tree: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(dotted name, default, meaning) of every option, in order: the help text is made from it."""
    rows = []
    for field in dataclasses.fields(tree):
        value, name = getattr(tree, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            rows += describe(value, name + ".")
        else:
            rows.append((name, value, field.metadata.get("doc", "")))
    return rows


def _wrong_type(value: Any, wanted: Any) -> str:
    """Command lines and JSON files bring any type: an int will do for a float, a bool for neither."""
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        fits = isinstance(value, tuple) and len(value) > 0 and not any(_wrong_type(each, item) for each in value)
        return "" if fits else f"must be a tuple of {item.__name__}"
    accepted = (int, float) if wanted is float else wanted
    fits = isinstance(value, accepted) and (wanted is bool or not isinstance(value, bool))
    return "" if fits else f"must be of type {wanted.__name__}"


def _problem(value: Any, metadata: Mapping) -> str:
    choices, low, high = metadata.get("choices"), metadata.get("low"), metadata.get("high")
    if choices and value not in choices:
        return "must be one of " + ", ".join(map(str, choices))
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    numbers = [each for each in (value if isinstance(value, tuple) else [value]) if isinstance(each, int | float)]
    for number in numbers:
        if low is not None and number < low:
            return f"must be at least {low}"
        if high is not None and number > high:
            return f"must be at most {high}"
    return ""
