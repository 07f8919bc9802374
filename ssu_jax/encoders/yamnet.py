"""YAMNet: log-mel patches of 0.96 s -> scores of AudioSet's 521 classes, and an embedding (Plakal and Ellis 2019).

It reads the patches of data/audio.py with a log offset of 0.001; config/published_classes.py has the class names. The
network is that of the int8 TFLite file made for microcontrollers (spectra in, scores out), batch norm folded:
activations are ReLU6 where the float release has ReLU. Scores are independent: several classes may sound at once.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.encoders.yamnet import YAMNetConfig
from ssu_jax.layers.convolution_unit import ConvolutionUnit

STEM_WIDTH = 32
# (width, stride) of the thirteen pairs of a depthwise and a 1 x 1 convolution.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class YAMNet(nn.Module):
    """One 3 x 3 convolution, thirteen separable ones, a mean over the map, one dense layer.

    Returns "map" [b, m / 32, f / 32, c], its mean "embedding" [b, c], "logits" and "scores" (their sigmoid)
    [b, num_classes]: [b, 3, 2, 1024], [b, 1024] and [b, 521] as published, from 3.7 M parameters.
    """

    config: YAMNetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, log_mel: Float[Array, "b m f"]) -> dict[str, Array]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        unit = functools.partial(ConvolutionUnit, **types)
        x = unit(self._scaled(STEM_WIDTH), 3, 2, name="stem")(log_mel[..., None])
        for block, (width, stride) in enumerate(BLOCKS):
            x = unit(x.shape[-1], 3, stride, depthwise=True, name=f"block_{block}_depthwise")(x)
            x = unit(self._scaled(width), name=f"block_{block}_pointwise")(x)
        embedding = jnp.mean(x.astype(jnp.float32), (1, 2)).astype(self.dtype)
        logits = nn.Dense(self.config.num_classes, name="classifier", **types)(embedding)
        scores = jax.nn.sigmoid(logits.astype(jnp.float32))
        return {"map": x, "embedding": embedding, "logits": logits, "scores": scores}

    def _scaled(self, width: int) -> int:
        return max(1, round(width * self.config.width_multiplier))
