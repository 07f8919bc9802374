"""What every picture goes through before an encoder sees it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

# Mean and standard deviation of the colours, of values in [0, 1]: facts published with the weights.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CENTRED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # [-1, 1]
BYTES = ((128 / 255,) * 3, (128 / 255,) * 3)  # byte / 128 - 1: the input of quantised networks

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]


def standardized(frames: Num[Array, "*b y x 3"], colours: Colours) -> Float[Array, "*b y x 3"]:
    """RGB of 0 to 255 -> float32 (value / 255 - mean) / deviation."""
    mean, deviation = (jnp.asarray(each, jnp.float32).reshape((1,) * (frames.ndim - 1) + (3,)) for each in colours)
    return (frames.astype(jnp.float32) / 255.0 - mean) / deviation


def resized(images: Float[Array, "b y1 x1 c"], rows: int, columns: int) -> Float[Array, "b y x c"]:
    """Bilinear, half-pixel centres, antialiased where it shrinks; the same size comes back unchanged."""
    if images.shape[1:3] == (rows, columns):
        return images
    return jax.image.resize(images, (images.shape[0], rows, columns, images.shape[3]), "bilinear")
