"""VGGish: log-mel patches of 0.96 s -> a map over time and mel, and an embedding (Hershey et al. 2017).

It reads the patches of data/audio.py with a log offset of 0.01. Two forms of the same weights are published:

- Google's (TensorFlow): no activation after the last layer; what AudioSet ships is that embedding after a PCA with
  whitening and 8-bit quantisation (`postprocess`).
- The torch port (harritaylor/torchvggish), which the audio-visual segmentation models use: a ReLU after the last
  layer. It turns its maps channels-last before they are flattened, so Google's dense weights fit unpermuted, and
  so they do here.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ssu_jax.config.encoders.vggish import VGGishConfig

CONVOLUTIONS = (1, 1, 2, 2)  # of the four stages
QUANTIZE_RANGE = (-2.0, 2.0)


class VGGish(nn.Module):
    """Four stages of 3 x 3 convolutions with ReLU, each ended by a 2 x 2 pooling, and three dense layers.

    Returns "map" [b, m / 16, f / 16, c], after the last pooling, and "embedding" [b, d]. At the published sizes
    they are [b, 6, 4, 512] and [b, 128], from 72.1 M parameters.
    """

    config: VGGishConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, log_mel: Float[Array, "b m f"]) -> dict[str, Array]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = log_mel[..., None].astype(self.dtype)
        for stage, (width, depth) in enumerate(zip(config.widths, CONVOLUTIONS, strict=True), start=1):
            for layer in range(1, depth + 1):
                x = nn.relu(nn.Conv(width, (3, 3), name=f"stage_{stage}_conv_{layer}", **types)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        features = {"map": x}
        x = x.reshape(x.shape[0], -1)
        for layer in (1, 2):
            x = nn.relu(nn.Dense(config.hidden, name=f"hidden_{layer}", **types)(x))
        x = nn.Dense(config.embedding_width, name="embedding", **types)(x)
        return features | {"embedding": nn.relu(x) if config.final_relu else x}


def postprocess(
    embedding: Float[Array, "b d"], pca_matrix: Float[Array, "p d"], means: Float[Array, " d"]
) -> UInt8[Array, "b p"]:
    """AudioSet's form of Google's embedding: whitened PCA, clipped to [-2, 2], 256 steps, rounded towards zero.

    `pca_matrix` holds one eigenvector a row. The torch port rounds to the nearest step instead.
    """
    low, high = QUANTIZE_RANGE
    whitened = (embedding - means[None, :]) @ pca_matrix.T
    return ((jnp.clip(whitened, low, high) - low) * (255.0 / (high - low))).astype(jnp.uint8)
