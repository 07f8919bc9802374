"""SSUFormer: the wiring of the paper's boxes, and nothing else."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from ssu_jax.config.model import ModelConfig
from ssu_jax.encoders.audio_patches import AudioPatchEncoder
from ssu_jax.encoders.pyramid import PyramidEncoder
from ssu_jax.models.ssuformer.consistency import RegionCaptionConsistency
from ssu_jax.models.ssuformer.fusion import MultiModalityIntegration, QueryTokenGenerator
from ssu_jax.models.ssuformer.mask_collaboration import MaskCollaboration, Region
from ssu_jax.models.ssuformer.mask_decoder import MaskHead, PixelDecoder
from ssu_jax.models.ssuformer.prompted_experts import HierarchicalPrompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import PAD
from ssu_jax.types import Batch, Outputs


class Fused(NamedTuple):
    """Everything known of b x t frames before masks and words."""

    pixels: Any  # [b * t, y / 4, x / 4, c]
    visual: Any  # [b * t, n, d]
    audio: Any  # [b * t, q, d]
    sound: Any  # [b, t, d]: mean audio token of the second


class SSUFormer(nn.Module):
    """Frames and sound of 10 seconds -> masks and sentences, one a second."""

    config: ModelConfig
    num_classes: int
    max_text_tokens: int

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.visual_encoder = PyramidEncoder(config.visual, dtype)
        self.audio_encoder = AudioPatchEncoder(config.audio, config.width, dtype)
        self.to_tokens = nn.Dense(config.width, dtype=dtype)
        self.query_tokens = QueryTokenGenerator(config, dtype)
        self.fusion = MultiModalityIntegration(config, dtype)
        self.pixel_decoder = PixelDecoder(config, dtype)
        self.audible_head = nn.Dense(self.num_classes)
        if not config.text_only:
            self.mask_head = MaskHead(config, dtype)
            self.semantic_head = nn.Dense(self.num_classes + 1)
        if not config.seg_only:
            self.text_decoder = TextDecoder(config, self.max_text_tokens, dtype)
            if self.uses_mcm:
                self.mask_collaboration = MaskCollaboration(config, dtype)
            if config.mohe:
                self.prompts = HierarchicalPrompts(config, self.num_classes, dtype)
            if self.uses_mcm and config.rcc:
                self.consistency = RegionCaptionConsistency(config, dtype)

    @property
    def uses_mcm(self) -> bool:
        """MCM needs masks to pool under, and words to feed."""
        return self.config.mcm and not (self.config.text_only or self.config.seg_only)

    def __call__(self, batch: Batch, mask_mix: Any = 0.0, train: bool = False) -> Outputs:
        """Teacher-forced pass. `mask_mix`: probability, a clip, that MCM sees the true mask (stream "mask")."""
        b, t, size = *batch.frames.shape[:2], batch.frames.shape[2]
        frames = normalized(batch.frames)
        fused = self.fuse(frames, batch.log_mel, batch.frame_valid)
        outputs = Outputs(None, None, audible_logits=self.audible_head(fused.sound).astype(jnp.float32))
        mask_logits = None
        if not self.config.text_only:
            mask_logits = self.mask_head(fused.pixels, fused.audio)
            semantic = self.semantic_head(fused.pixels).astype(jnp.float32)
            outputs = outputs._replace(
                mask_logits=mask_logits.reshape(b, t, size, size),
                semantic_logits=semantic.reshape(b, t, *semantic.shape[1:]),
            )
        if self.config.seg_only:
            return outputs
        masks = None
        if self.uses_mcm:
            masks = self._masks_for_mcm(outputs.mask_logits, batch.masks, mask_mix)
        return self._with_words(outputs, batch, fused, *self.context(frames, fused, masks, batch.frame_valid), train)

    def fuse(
        self, frames: Float[Array, "b t y x 3"], log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
    ) -> Fused:
        """Encoders, query token generator, MMI and pixel decoder."""
        b, t = frames.shape[:2]
        features = self.visual_encoder(frames.reshape(b * t, *frames.shape[2:]))
        audio = self.audio_encoder(log_mel.reshape(b * t, *log_mel.shape[2:]))
        audio = audio.reshape(b, t, *audio.shape[1:])
        queries = self.query_tokens(audio, frame_valid)
        last = features["stage_4"]
        tokens = self.to_tokens(last.reshape(b * t, -1, last.shape[-1]))
        visual, queries = self.fusion(tokens, queries.reshape(b * t, *queries.shape[2:]))
        return Fused(self.pixel_decoder(features, visual), visual, queries, audio.mean(axis=2))

    def masks(self, fused: Fused) -> Float[Array, "b y x"]:
        """Mask probabilities of every frame."""
        return jax.nn.sigmoid(self.mask_head(fused.pixels, fused.audio))

    def context(
        self,
        frames: Float[Array, "b t y x 3"],
        fused: Fused,
        masks: Float[Array, "f y x"] | None,
        frame_valid: Bool[Array, "b t"],
    ) -> tuple[Context, Region | None]:
        """What the text decoder attends to: fusion tokens, region tokens (MCM), prompts (MoHE)."""
        b, t = frame_valid.shape
        tokens = [jnp.concatenate([fused.visual, fused.audio], axis=1)]
        bias, region, prompts = [jnp.zeros(tokens[0].shape[:2], jnp.float32)], None, None
        if self.uses_mcm:
            flat = frames.reshape(b * t, *frames.shape[2:])
            region = self.mask_collaboration(flat, fused.pixels, masks)
            tokens.append(region.tokens)
            bias.append(region.bias)
        if self.config.mohe:
            summary = fused.audio.mean(axis=1) if region is None else region.summary
            both = tokens[0].reshape(b, t, *tokens[0].shape[1:])
            prompts = self.prompts(both, summary.reshape(b, t, -1), fused.sound, frame_valid)
            tokens.append(prompts.tokens)
            bias.append(jnp.zeros(prompts.tokens.shape[:2], jnp.float32))
        return Context(jnp.concatenate(tokens, axis=1), jnp.concatenate(bias, axis=1), prompts), region

    def start_words(self, context: Context) -> Any:
        """State of the text decoder before the first word."""
        return self.text_decoder.start(context)

    def next_word(self, ids: Int[Array, "b 1"], context: Context, state: Any, position: Any) -> tuple[Any, Any]:
        """Logits of the next word of every frame, and the new state."""
        return self.text_decoder.step(ids, context, state, position)

    def _masks_for_mcm(self, logits: Any, true_masks: Any, mask_mix: Any) -> Float[Array, "f y x"]:
        predicted = jax.nn.sigmoid(logits)
        if self.has_rng("mask"):
            use_true = jax.random.uniform(self.make_rng("mask"), (logits.shape[0], 1, 1, 1)) < mask_mix
            predicted = jnp.where(use_true, true_masks.astype(jnp.float32), predicted)
        return predicted.reshape(-1, *logits.shape[2:])

    def _with_words(
        self, outputs: Outputs, batch: Batch, fused: Fused, context: Context, region: Region | None, train: bool
    ) -> Outputs:
        b, t, length = batch.text_ids.shape
        ids = batch.text_ids.reshape(b * t, length)
        inputs = ids[:, :-1]
        # Positions whose target is padding take no expert capacity.
        mask = (ids[:, 1:] != PAD) & batch.frame_valid.reshape(-1, 1)
        words = self.text_decoder(inputs, context, mask, train)
        outputs = outputs._replace(
            text_logits=words.logits.reshape(b, t, *words.logits.shape[1:]),
            lm_logits=None if words.lm_logits is None else words.lm_logits.reshape(b, t, *words.lm_logits.shape[1:]),
            scene_logits=None if context.prompts is None else context.prompts.scene_logits,
            router=jax.tree.map(lambda *blocks: jnp.stack(blocks), *words.stats) if self.config.mohe else None,
        )
        if region is None or not self.config.rcc:
            return outputs
        seen, written, scale = self.consistency(region.summary, ids)
        return outputs._replace(
            region_embedding=seen.reshape(b, t, -1), text_embedding=written.reshape(b, t, -1), embedding_scale=scale
        )


def normalized(frames: UInt8[Array, "b t y x 3"]) -> Float[Array, "b t y x 3"]:
    """uint8 RGB -> about [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1.0
