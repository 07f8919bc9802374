"""FLOPs of a function, by a walk over its jaxpr: nothing is run, compiled or allocated.

The rule, the same on every device:

    matmul, convolution   2 a multiply-add: the figure that papers print. Padding counts as it does there; of an
                          input dilated with zeros (transposed convolutions, gradients of strided ones) the entries
    elementwise           1 a number that is made; an integer power, its multiplications
    transcendental        1 a number, in the total and under a name of its own (exp, tanh, rsqrt, ...)
    reduction             n - 1 for n numbers that become one; a scatter-add, 1 a number added

Integers, booleans, random bits and moved data (reshape, gather, select, sort, ...) are free. What no output needs is
left out, as the compiler does. A scan is its body times its length; a branch the dearest one; a call, custom
derivative or rematerialized block what is in it, so that work done twice counts twice; a shard_map its body times
its devices. A while loop is its body times the bound that its condition states (`i < bound`, i counting from a known
number by a known step), else times `loop_bound`, else once, and that is reported.
"""

from ssu_jax.flops.walk import KINDS, Flops, flops_of

__all__ = ["KINDS", "Flops", "flops_of"]
