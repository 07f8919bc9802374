"""What a training step will need, told from shapes before anything is compiled."""

from typing import Any

import jax

from ssu_jax.config import Config
from ssu_jax.training import parts
from ssu_jax.training.step import total_loss
from ssu_jax.types import Batch


def kept_bytes(model: Any, config: Config, params: dict, batch: Batch) -> int:
    """Bytes of all that the forward pass keeps for the backward pass, over all devices; what is recomputed is not.

    params and batch may be shapes. Parameters and inputs themselves do not count. The compiler needs less where it
    computes again or joins operations, and more for what lives only a moment: an estimate.
    """
    learned, frozen = parts.split(params, config.train.freeze)

    def backward(learned, frozen, batch):
        def loss(learned):
            rngs = {"mask": jax.random.key(0)}
            outputs = model.apply({"params": parts.merge(learned, frozen)}, batch, 1.0, rngs=rngs, train=True)
            return total_loss(outputs, batch, config)[0]

        return jax.vjp(loss, learned)[1]

    program = jax.make_jaxpr(backward)(learned, frozen, batch).jaxpr
    made = {variable for variable in program.outvars if not hasattr(variable, "val")} - set(program.invars)
    return sum(variable.aval.size * variable.aval.dtype.itemsize for variable in made)
