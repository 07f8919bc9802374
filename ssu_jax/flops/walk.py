"""The walk over a jaxpr and the jaxprs inside it."""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core

from ssu_jax.flops import loops, rules
from ssu_jax.flops.rules import KINDS

Mask = tuple[bool, ...]


class Flops(NamedTuple):
    """total: the sum of by_kind, which has every one of KINDS.

    loops_counted_once: while loops of unknown length.  loops_at_bound: while loops counted at a bound that they may
    stay below.  uncounted: primitives that the rule does not know, empty where the count is whole.
    """

    total: int
    by_kind: dict[str, int]
    loops_counted_once: int
    loops_at_bound: int
    uncounted: tuple[str, ...]

    @property
    def published(self) -> int:
        """Matmuls and convolutions alone: what papers print as FLOPs (half of it where they count multiply-adds)."""
        return self.by_kind[rules.MATMUL] + self.by_kind[rules.CONVOLUTION]


def flops_of(function: Callable, *args: Any, loop_bound: int | None = None) -> Flops:
    """FLOPs of `function(*args)`. The arguments may be arrays or shapes (`jax.ShapeDtypeStruct`), in any pytree.

    loop_bound: rounds of a while loop whose condition states no bound.
    """
    closed = jax.make_jaxpr(function)(*args)
    tally = _of_closed(closed, None, {}, loop_bound)
    by_kind = {kind: tally.kinds[kind] for kind in KINDS}
    return Flops(sum(by_kind.values()), by_kind, tally.once, tally.at_bound, tuple(sorted(tally.uncounted)))


@dataclasses.dataclass
class _Tally:
    """What has been counted so far."""

    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    once: int = 0
    at_bound: int = 0
    uncounted: set[str] = dataclasses.field(default_factory=set)

    def add(self, other: "_Tally", times: int = 1) -> None:
        for kind, count in other.kinds.items():
            self.kinds[kind] += count * times
        self.once += other.once
        self.at_bound += other.at_bound
        self.uncounted |= other.uncounted


def _of_closed(closed: Any, wanted: Mask | None, known: loops.Known, loop_bound: int | None) -> _Tally:
    """`wanted` None: all outputs."""
    wanted = (True,) * len(closed.jaxpr.outvars) if wanted is None else wanted
    return _of_jaxpr(closed.jaxpr, wanted, {**known, **loops.constants(closed)}, loop_bound)


def _of_jaxpr(jaxpr: Any, wanted: Mask, known: loops.Known, loop_bound: int | None) -> _Tally:
    """The equations that the wanted outputs need. `known` gains what is found out on the way."""
    tally = _Tally()
    for eqn, mask in _needed(jaxpr, wanted)[0]:
        if eqn.primitive.name == "scan":
            tally.add(_of_closed(eqn.params["jaxpr"], None, {}, loop_bound), eqn.params["length"])
        elif eqn.primitive.name == "while":
            tally.add(_of_while(eqn, known, loop_bound))
        elif eqn.primitive.name == "cond":
            branches = [
                _of_closed(branch, mask, loops.bound(branch.jaxpr.invars, eqn.invars[1:], known), loop_bound)
                for branch in eqn.params["branches"]
            ]
            tally.add(max(branches, key=lambda branch: branch.kinds.total()))
        elif (inner := _called(eqn)) is not None:
            inside = loops.bound(inner.invars, eqn.invars, known) | _constants_inside(eqn)
            tally.add(_of_jaxpr(inner, mask, inside, loop_bound), _num_devices(eqn))
            known.update(loops.bound(eqn.outvars, inner.outvars, inside))
        else:
            _count_one(eqn, tally, known, loop_bound)
    return tally


def _count_one(eqn: Any, tally: _Tally, known: loops.Known, loop_bound: int | None) -> None:
    cost = rules.cost_of(eqn)
    if cost is None:
        # What lies inside is better than nothing, and is said.
        tally.uncounted.add(eqn.primitive.name)
        for inner in rules.jaxprs_of(eqn):
            tally.add(_of_jaxpr(inner, (True,) * len(inner.outvars), {}, loop_bound))
        return
    kind, count = cost
    if kind:
        tally.kinds[kind] += count
    else:
        loops.learn(eqn, known)


def _of_while(eqn: Any, known: loops.Known, loop_bound: int | None) -> _Tally:
    tally = _Tally()
    trips, is_exact = loops.trips_of(eqn, known)
    if trips is None:
        trips = 1 if loop_bound is None else loop_bound
        tally.once += loop_bound is None
        tally.at_bound += loop_bound is not None
    else:
        tally.at_bound += not is_exact
    tally.add(_of_closed(eqn.params["body_jaxpr"], None, loops.body_known(eqn, known), loop_bound), trips)
    tally.add(_of_closed(eqn.params["cond_jaxpr"], None, loops.cond_known(eqn, known), loop_bound), trips + 1)
    return tally


def _needed(jaxpr: Any, wanted: Mask) -> tuple[list[tuple[Any, Mask]], Mask]:
    """The equations that count, in order, each with its outputs that are used; and which inputs are used."""
    live = {var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want and isinstance(var, core.Var)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        mask = tuple(var in live for var in eqn.outvars)
        if not any(mask) and not eqn.effects:
            continue
        kept.append((eqn, mask))
        inner = _called(eqn)
        used = (True,) * len(eqn.invars) if inner is None else _needed(inner, mask)[1]
        live.update(var for var, use in zip(eqn.invars, used, strict=True) if use and isinstance(var, core.Var))
    return kept[::-1], tuple(var in live for var in jaxpr.invars)


def _called(eqn: Any) -> Any:
    """The jaxpr of an equation that only calls it (jit, remat, custom derivatives, shard_map, ...), else None."""
    if eqn.primitive.name in ("scan", "while", "cond") or rules.cost_of(eqn) is not None:
        return None
    inside = list(rules.jaxprs_of(eqn))
    if len(inside) != 1 or len(inside[0].invars) != len(eqn.invars) or len(inside[0].outvars) != len(eqn.outvars):
        return None
    return inside[0]


def _constants_inside(eqn: Any) -> loops.Known:
    closed = [value for value in eqn.params.values() if isinstance(value, core.ClosedJaxpr)]
    return loops.constants(closed[0]) if closed else {}


def _num_devices(eqn: Any) -> int:
    """Shapes inside a shard_map are those of one device."""
    if eqn.primitive.name != "shard_map":
        return 1
    axes = eqn.params["newly_manual_axes" if "newly_manual_axes" in eqn.params else "manual_axes"]
    return math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
