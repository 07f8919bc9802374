"""DeepLabV3 on MobileNetV2: a class for every pixel (Chen et al. 2017, in its form for phones).

The head sees the last map through a 1 x 1 convolution, and its mean over the whole image through another; there is
no branch with dilated kernels. Published for 513 x 513 images; other sizes work. Colours as for MobileNetV2; the
class names of PASCAL VOC stand in config/published_classes.py.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssu_jax.config.encoders.deeplab_v3 import DeepLabV3Config
from ssu_jax.encoders.mobilenet_v2 import MobileNetV2
from ssu_jax.layers.convolution_unit import ConvolutionUnit


class DeepLabV3(nn.Module):
    """Images [b, y, x, 3] -> the backbone's "stage_1" ... "stage_5" and the scores of every pixel.

    Returns also "coarse_logits" [b, y / 16, x / 16, num_classes] as the network computes them, "logits"
    [b, y, x, num_classes], resized by `resized_corners`, and "classes" int32 [b, y, x], the best of them. Under
    jit what the caller does not use is not computed.
    """

    config: DeepLabV3Config
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"]) -> dict[str, Array]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        unit = functools.partial(
            ConvolutionUnit,
            activation=nn.relu,
            norm_eps=config.norm_eps if config.backbone.batch_norm else None,
            **types,
        )
        features = MobileNetV2(config.backbone, remat=self.remat, name="backbone", **types)(images)
        # transformers' checkpoints hold the last convolution of the classifier too; nothing reads its output.
        features = {name: value for name, value in features.items() if name.startswith("stage_")}
        x = features["stage_5"]
        mean = jnp.mean(x.astype(jnp.float32), (1, 2), keepdims=True).astype(self.dtype)
        whole = unit(config.head_width, name="image_pooling")(mean)
        near = unit(config.head_width, name="pixel")(x)
        x = jnp.concatenate([jnp.broadcast_to(whole, near.shape), near], -1)
        x = unit(config.head_width, name="projection")(x)
        coarse = ConvolutionUnit(config.num_classes, activation=None, name="classifier", **types)(x)
        logits = resized_corners(coarse.astype(jnp.float32), images.shape[1], images.shape[2])
        classes = jnp.argmax(logits, -1).astype(jnp.int32)
        return features | {"coarse_logits": coarse, "logits": logits, "classes": classes}


def resized_corners(maps: Float[Array, "b y1 x1 c"], rows: int, columns: int) -> Float[Array, "b y x c"]:
    """Bilinear, with the centres of the corner cells on the centres of the corner pixels ("align corners")."""
    row_weights = jnp.asarray(_corner_weights(maps.shape[1], rows), maps.dtype)
    column_weights = jnp.asarray(_corner_weights(maps.shape[2], columns), maps.dtype)
    maps = jnp.einsum("ij,bjxc->bixc", row_weights, maps)
    return jnp.einsum("ij,byjc->byic", column_weights, maps)


def _corner_weights(cells: int, pixels: int) -> np.ndarray:
    """[pixels, cells]: the share of each cell in each pixel, two in a row at most."""
    places = np.linspace(0.0, cells - 1.0, pixels)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)[None, :]))
