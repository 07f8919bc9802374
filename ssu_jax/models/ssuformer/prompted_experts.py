"""Mixture of hierarchical-prompted experts (MoHE). Our design: the authors published its name and purpose.

Three levels of prompts lead the text decoder and its router: the *scene* (a soft class of the whole clip),
the *region* (what MCM sees under the mask of the frame) and the *frame* (that second's sound and time).
Each gives a few prompt tokens to attend to and one summary vector for the router.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers import embeddings
from ssu_jax.layers.moe.experts import MixtureOfExperts


class Prompts(NamedTuple):
    """Prompts of b frames."""

    tokens: Any  # [b, 3 * prompt_tokens, d]
    summaries: Any  # [b, 3, d]: scene, region, frame
    scene_logits: Any  # float32 [clips, u]


class HierarchicalPrompts(nn.Module):
    """Scene, region and frame -> Prompts."""

    config: ModelConfig
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        fused: Float[Array, "b t n d"],
        region: Float[Array, "b t d"],
        sound: Float[Array, "b t d"],
        frame_valid: Bool[Array, "b t"],
    ) -> Prompts:
        b, t, _, d = fused.shape
        count = self.config.moe.prompt_tokens
        scene, logits = self._scene(fused.mean(axis=2), frame_valid)
        scene = jnp.broadcast_to(scene[:, None], (b, t, count, d))
        time = embeddings.seconds_of(t, d)[None].astype(self.dtype)
        region = self._expand("region", region)
        frame = self._expand("frame", sound + time)
        levels = jnp.stack([scene.astype(self.dtype), region, frame], axis=2)  # [b, t, 3, count, d]
        levels = levels.reshape(b * t, 3, count, d)
        return Prompts(levels.reshape(b * t, 3 * count, d), levels.mean(axis=2), logits)

    def _scene(self, clip: Float[Array, "b t d"], frame_valid: Bool[Array, "b t"]) -> tuple[Array, Array]:
        """Class probabilities of the clip mix the prompts of the classes."""
        weights = frame_valid.astype(jnp.float32)[..., None]
        pooled = (clip.astype(jnp.float32) * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1.0)
        logits = nn.Dense(self.num_classes, name="scene_head")(pooled)
        shape = (self.num_classes, self.config.moe.prompt_tokens, clip.shape[-1])
        table = self.param("scene_prompts", nn.initializers.normal(0.5), shape)
        return jnp.einsum("bu,upd->bpd", jax.nn.softmax(logits), table), logits

    def _expand(self, name: str, x: Float[Array, "b t d"]) -> Float[Array, "b t p d"]:
        count, d = self.config.moe.prompt_tokens, x.shape[-1]
        return nn.Dense(count * d, dtype=self.dtype, name=name)(x).reshape(*x.shape[:-1], count, d)


class PromptedExperts(nn.Module):
    """The experts of one decoder block: the router sees the token and the three summaries of its frame."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], prompts: Prompts, mask: Bool[Array, "b l"], train: bool
    ) -> tuple[Float[Array, "b l d"], dict]:
        b, l, d = x.shape
        summaries = jnp.broadcast_to(prompts.summaries[:, None], (b, l, 3, d))
        router_input = jnp.concatenate([x[:, :, None], summaries], axis=2).reshape(b * l, 4 * d)
        experts = MixtureOfExperts(self.config.moe, d, self.dtype, name="experts")
        scene = summaries[:, :, 0].reshape(b * l, d)
        y, stats = experts(x.reshape(b * l, d), router_input, mask.reshape(b * l), scene, train)
        return y.reshape(b, l, d), stats
