"""What one equation costs. The rule in words stands in the package's docstring."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

MATMUL, CONVOLUTION, REDUCTION = "matmul", "convolution", "reduction"
ELEMENTWISE, TRANSCENDENTAL = "elementwise", "transcendental"
KINDS = (MATMUL, CONVOLUTION, ELEMENTWISE, TRANSCENDENTAL, REDUCTION)

_ELEMENTWISE = frozenset(
    """abs add add_any ceil clamp conj cummax cummin cumprod cumsum div eq eq_to floor ge gt is_finite le le_to lt lt_to
    max min mul ne neg nextafter rem round sign square sub""".split()
)
_TRANSCENDENTAL = frozenset(
    """acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt cos cosh cumlogsumexp digamma erf erf_inv erfc
    exp exp2 expm1 lgamma log log1p log2 logistic pow rsqrt sin sinh sqrt tan tanh""".split()
)
_REDUCTION = frozenset("argmax argmin reduce_max reduce_min reduce_prod reduce_sum".split())
_OVER_DEVICES = frozenset("pmax pmin psum psum_invariant reduce_scatter".split())
_SCATTER = frozenset("scatter-add scatter-max scatter-min scatter-mul scatter-sub".split())
_WINDOW = frozenset("reduce_window reduce_window_max reduce_window_min reduce_window_sum".split())
_FREE = frozenset(
    """all_gather all_gather_invariant all_to_all approx_top_k bitcast_convert_type broadcast_in_dim complex concatenate
    convert_element_type copy copy_p device_put dynamic_slice dynamic_update_slice empty empty2 gather imag iota
    name optimization_barrier pad pbroadcast pcast ppermute pvary random_bits real reduce_precision reshape rev scatter
    select_n sharding_constraint slice sort split squeeze stack stop_gradient tie tile top_k transpose unstack
    vary_unreduced_cast vary_unreduced_cast_p""".split()
)


def cost_of(eqn: Any) -> tuple[str, int] | None:
    """(one of KINDS, FLOPs) of an equation, ("", 0) if it is free; None for one that the rule does not know."""
    name = eqn.primitive.name
    if name in _FREE:
        return "", 0
    for names, kind, count in _RULES:
        if name in names:
            return (kind, count(eqn)) if kind == MATMUL or _has_floats(eqn) else ("", 0)
    return None if _has_floats(eqn) or any(True for _ in jaxprs_of(eqn)) else ("", 0)


def jaxprs_of(eqn: Any) -> Iterator[Any]:
    """Every jaxpr among the parameters of an equation, without its constants."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr | core.Jaxpr):
                yield item.jaxpr if isinstance(item, core.ClosedJaxpr) else item


def _of_dot(eqn: Any) -> int:
    ((contracting, _), _) = eqn.params["dimension_numbers"]
    return 2 * _outputs(eqn) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracting)


def _of_ragged_dot(eqn: Any) -> int:
    """Every row meets one group, whatever a device makes of it."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, contracting), (_, batch) = numbers.dot_dimension_numbers
    taken = {*contracting, *batch, *numbers.rhs_group_dimensions}
    free = [size for axis, size in enumerate(eqn.invars[1].aval.shape) if axis not in taken]
    return 2 * _size(eqn.invars[0]) * math.prod(free)


def _of_convolution(eqn: Any) -> int:
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    image, kernel, out = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    sizes = zip(numbers.out_spec[2:], numbers.rhs_spec[2:], numbers.lhs_spec[2:], strict=True)
    per_channel = math.prod(
        _num_products(out[o], kernel[k], image[i], params, axis) for axis, (o, k, i) in enumerate(sizes)
    )
    # The kernel's own input channels are those of one group.
    batch, channels = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2 * batch * channels * kernel[numbers.rhs_spec[1]] * per_channel


def _num_products(out: int, kernel: int, entries: int, params: Mapping[str, Any], axis: int) -> int:
    """Pairs (output, tap) along an axis; of a dilated input of `entries`, those that meet an entry."""
    dilation = params["lhs_dilation"][axis]
    if dilation == 1:
        return out * kernel
    places = np.arange(out)[:, None] * params["window_strides"][axis] - params["padding"][axis][0]
    places = places + np.arange(kernel)[None] * params["rhs_dilation"][axis]
    return int(((places % dilation == 0) & (places >= 0) & (places < entries * dilation)).sum())


def _of_integer_power(eqn: Any) -> int:
    """By repeated squaring; a negative power ends with a division."""
    power = abs(eqn.params["y"])
    products = max(power.bit_length() - 1, 0) + max(power.bit_count() - 1, 0)
    return (products + (eqn.params["y"] < 0)) * _outputs(eqn)


def _of_reduction(eqn: Any) -> int:
    return sum(map(_size, eqn.invars)) - _outputs(eqn)


def _of_general_reduction(eqn: Any) -> int:
    """Operands first, then a start for each; its body takes one operation a number."""
    return sum(map(_size, eqn.invars[: len(eqn.invars) // 2])) - _outputs(eqn)


def _outputs(eqn: Any) -> int:
    return sum(map(_size, eqn.outvars))


def _window(eqn: Any) -> int:
    return math.prod(eqn.params["window_dimensions"])


_RULES: tuple[tuple[frozenset[str], str, Callable[[Any], int]], ...] = (
    (frozenset(["dot_general"]), MATMUL, _of_dot),
    (frozenset(["ragged_dot_general"]), MATMUL, _of_ragged_dot),
    (frozenset(["conv_general_dilated"]), CONVOLUTION, _of_convolution),
    (frozenset(["integer_pow"]), ELEMENTWISE, _of_integer_power),
    (frozenset(["one_minus_square"]), ELEMENTWISE, lambda eqn: 2 * _outputs(eqn)),
    (_ELEMENTWISE, ELEMENTWISE, _outputs),
    (_TRANSCENDENTAL, TRANSCENDENTAL, _outputs),
    (_REDUCTION, REDUCTION, _of_reduction),
    (frozenset(["reduce"]), REDUCTION, _of_general_reduction),
    (_OVER_DEVICES, REDUCTION, _outputs),
    (_SCATTER, REDUCTION, lambda eqn: _size(eqn.invars[2])),
    (_WINDOW, REDUCTION, lambda eqn: _outputs(eqn) * (_window(eqn) - 1)),
    (frozenset(["select_and_gather_add"]), REDUCTION, lambda eqn: _outputs(eqn) * _window(eqn)),
    (frozenset(["select_and_scatter_add"]), REDUCTION, lambda eqn: _size(eqn.invars[0]) * _window(eqn)),
)


def _size(atom: Any) -> int:
    return math.prod(getattr(atom.aval, "shape", ()))


def _has_floats(eqn: Any) -> bool:
    dtypes = [getattr(atom.aval, "dtype", None) for atom in (*eqn.invars, *eqn.outvars)]
    return any(dtype is not None and jnp.issubdtype(dtype, np.inexact) for dtype in dtypes)
