"""How often a while loop goes round, where its jaxpr tells: a counter that runs from a number to a number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

Known = dict[Any, int]  # variables that are scalar integers of a known value

_SAME_NUMBER = frozenset(["convert_element_type", "copy", "name", "stop_gradient"])
_ARITHMETIC = {"add": int.__add__, "sub": int.__sub__, "mul": int.__mul__, "min": min, "max": max}
_COMPARED = {"lt": 0, "le": 1, "gt": 0, "ge": 1}  # 1 where the limit itself belongs to the loop
_RISING = ("lt", "le")


def trips_of(eqn: Any, known: Known) -> tuple[int | None, bool]:
    """(the most rounds that the condition allows or None, whether it is always as many)."""
    params = eqn.params
    cond, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
    carried = eqn.invars[of_cond + of_body :]
    start = [value_of(atom, known) for atom in carried]
    steps = _steps(body, of_body, body_known(eqn, known))
    inside = cond_known(eqn, known)
    counters = {}
    for var, first, step in zip(cond.invars[of_cond:], start, steps, strict=True):
        if first is not None and step == 0:
            inside[var] = first  # a limit that is carried along
        elif first is not None and step is not None:
            counters[var] = (first, step)
    conditions = _conditions(cond)
    trips = [count for each in conditions if (count := _rounds(each, counters, inside)) is not None]
    return (min(trips), len(conditions) == 1) if trips else (None, False)


def cond_known(eqn: Any, known: Known) -> Known:
    """What is known inside the condition of a while loop, its counters aside."""
    closed, count = eqn.params["cond_jaxpr"], eqn.params["cond_nconsts"]
    return {**bound(closed.jaxpr.invars, eqn.invars[:count], known), **constants(closed)}


def body_known(eqn: Any, known: Known) -> Known:
    """What is known inside the body of a while loop, its counters aside."""
    closed, first, count = eqn.params["body_jaxpr"], eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    return {**bound(closed.jaxpr.invars, eqn.invars[first : first + count], known), **constants(closed)}


def _conditions(cond: Any) -> list[Any]:
    """The equations that `and` joins to the answer; None for one that is no equation of this jaxpr."""
    made = {var: eqn for eqn in cond.eqns for var in eqn.outvars}
    found, open_ends = [], [cond.outvars[0]]
    while open_ends:
        end = open_ends.pop()
        eqn = made.get(end) if isinstance(end, core.Var) else None
        if eqn is not None and eqn.primitive.name == "and":
            open_ends += eqn.invars
        else:
            found.append(eqn)
    return found


def _rounds(condition: Any, counters: dict[Any, tuple[int, int]], known: Known) -> int | None:
    """Rounds until a comparison of a counter with a limit fails; None if it is no such comparison."""
    if condition is None or condition.primitive.name not in _COMPARED:
        return None
    name = condition.primitive.name
    counter, limit = condition.invars
    way = 1 if name in _RISING else -1
    if isinstance(counter, core.Literal) or counter not in counters:  # limit > i
        counter, limit, way = limit, counter, -way
    if isinstance(counter, core.Literal) or counter not in counters:
        return None
    (first, step), last = counters[counter], value_of(limit, known)
    if last is None or step * way <= 0:  # unknown, or it runs away from the limit
        return None
    return max(0, -(-((last - first) * way + _COMPARED[name]) // abs(step)))


def _steps(body: Any, num_consts: int, known: Known) -> list[int | None]:
    """By how much every carried value changes in a round: 0 where it is handed on, None if unknown."""
    made = {var: eqn for eqn in body.eqns for var in eqn.outvars}
    steps: list[int | None] = []
    for before, after in zip(body.invars[num_consts:], body.outvars, strict=True):
        eqn = made.get(after) if isinstance(after, core.Var) else None
        step = 0 if after is before else None
        if eqn is not None and eqn.primitive.name in ("add", "sub"):
            left, right = eqn.invars
            if right is before and eqn.primitive.name == "add":
                left, right = right, left
            if left is before and (value := value_of(right, known)) is not None:
                step = value if eqn.primitive.name == "add" else -value
        steps.append(step)
    return steps


def bound(inner: Sequence[Any], atoms: Sequence[Any], known: Known) -> Known:
    """What is known of the first variables of an inner jaxpr, which stand for `atoms`."""
    pairs = zip(inner, atoms, strict=False)
    return {var: value for var, atom in pairs if (value := value_of(atom, known)) is not None}


def constants(closed: Any) -> Known:
    """Scalar integers among the constants of a closed jaxpr."""
    pairs = zip(closed.jaxpr.constvars, closed.consts, strict=True)
    return {var: value for var, const in pairs if (value := _integer(const)) is not None}


def learn(eqn: Any, known: Known) -> None:
    """Adds to `known` the result of integer arithmetic on known numbers."""
    values, name = [value_of(atom, known) for atom in eqn.invars], eqn.primitive.name
    if values and None not in values and (name in _SAME_NUMBER or name in _ARITHMETIC):
        known[eqn.outvars[0]] = values[0] if name in _SAME_NUMBER else _ARITHMETIC[name](*values)


def value_of(atom: Any, known: Known) -> int | None:
    """The number that a variable or literal stands for, where it is known."""
    return _integer(atom.val) if isinstance(atom, core.Literal) else known.get(atom)


def _integer(value: Any) -> int | None:
    is_integer = np.ndim(value) == 0 and np.issubdtype(getattr(value, "dtype", type(value)), np.integer)
    return int(value) if is_integer else None
