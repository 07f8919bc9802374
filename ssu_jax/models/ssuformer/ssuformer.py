"""SSUFormer: the wiring of the paper's boxes, and nothing else."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from ssu_jax.config.encoders import clip as clip_sizes
from ssu_jax.config.model import ModelConfig
from ssu_jax.encoders.clip import CLIPText, CLIPVision
from ssu_jax.layers import images
from ssu_jax.models.ssuformer import backbones, clip_regions
from ssu_jax.models.ssuformer.consistency import RegionCaptionConsistency
from ssu_jax.models.ssuformer.fusion import MultiModalityIntegration, QueryTokenGenerator
from ssu_jax.models.ssuformer.mask_collaboration import MaskCollaboration, Region
from ssu_jax.models.ssuformer.mask_decoder import MaskHead, PixelDecoder, QueryMaskHead
from ssu_jax.models.ssuformer.prompted_experts import HierarchicalPrompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import BOS, EOS, PAD
from ssu_jax.types import Batch, Outputs


class Fused(NamedTuple):
    """Everything known of b x t frames before masks and words."""

    pixels: Any  # [b * t, y / 4, x / 4, c]
    seen: Any  # [b * t, n, d]: visual tokens before fusion
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
        self.visual_encoder = backbones.visual_encoder(config.visual, dtype, config.scan_blocks)
        self.audio_encoder = backbones.audio_encoder(config.audio, config.width, dtype)
        self.to_tokens = nn.Dense(config.width, dtype=dtype)
        self.query_tokens = QueryTokenGenerator(config, dtype)
        self.fusion = MultiModalityIntegration(config, dtype)
        self.pixel_decoder = PixelDecoder(config, dtype)
        self.audible_head = nn.Dense(self.num_classes)
        if not config.text_only:
            multi = config.mask_form == "multi"
            self.mask_head = QueryMaskHead(config, self.num_classes, dtype) if multi else MaskHead(config, dtype)
            self.semantic_head = nn.Dense(self.num_classes + 1)
        if not config.seg_only:
            self.text_decoder = TextDecoder(config, self.max_text_tokens, dtype)
            if config.mohe:
                self.prompts = HierarchicalPrompts(config, self.num_classes, dtype)
            if self.uses_mcm and self.uses_clip:
                clip = clip_sizes.VARIANTS[config.clip.variant]
                ways = {"remat": config.clip.remat, "scan": config.scan_blocks}
                self.clip_vision = CLIPVision(clip.vision, dtype, **ways)
                self.mask_collaboration = clip_regions.CLIPRegions(config, dtype)
                if config.rcc:
                    self.clip_text = CLIPText(clip.text, dtype, **ways)
            elif self.uses_mcm:
                self.mask_collaboration = MaskCollaboration(config, dtype)
                if config.rcc:
                    self.consistency = RegionCaptionConsistency(config, dtype)

    @property
    def uses_mcm(self) -> bool:
        """MCM needs masks to pool under, and words to feed."""
        return self.config.mcm and not (self.config.text_only or self.config.seg_only)

    @property
    def uses_clip(self) -> bool:
        """Whether a CLIP encoder looks at the region."""
        return self.config.region_encoder != "cells"

    def __call__(self, batch: Batch, mask_mix: Any = 0.0, train: bool = False) -> Outputs:
        """Teacher-forced pass. `mask_mix`: probability, a clip, that MCM sees the true mask (stream "mask")."""
        b, t = batch.frames.shape[:2]
        fused = self.fuse(batch.frames, batch.log_mel, batch.frame_valid)
        outputs = Outputs(None, None, audible_logits=self.audible_head(fused.sound).astype(jnp.float32))
        if not self.config.text_only:
            both = self.mask_head(fused.pixels, fused.audio), self.semantic(fused)
            drawn, semantic = jax.tree.map(lambda x: x.reshape(b, t, *x.shape[1:]), both)
            outputs = outputs._replace(
                mask_logits=drawn.union,
                query_class_logits=drawn.class_logits,
                query_mask_logits=drawn.mask_logits,
                semantic_logits=semantic,
            )
        if self.config.seg_only:
            return outputs
        region = None
        if self.uses_mcm:
            predicted = jax.nn.sigmoid(outputs.mask_logits)
            masks = self._masks_for_mcm(predicted, batch, mask_mix)
            region = self.region(batch.frames, fused, masks, predicted.reshape(masks.shape))
        context = self.context(fused, region, batch.frame_valid)
        return self._with_words(outputs, batch, context, region, train)

    def fuse(
        self, frames: UInt8[Array, "b t y x 3"], log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
    ) -> Fused:
        """Encoders, query token generator, MMI and pixel decoder."""
        b, t = frames.shape[:2]
        pictures = backbones.pictures_for(self.config.visual, frames.reshape(b * t, *frames.shape[2:]))
        features = self.visual_encoder(pictures)
        audio = self.audio_encoder(log_mel.reshape(b * t, *log_mel.shape[2:]))
        audio = audio.reshape(b, t, *audio.shape[1:])
        queries = self.query_tokens(audio, frame_valid)
        last = features["stage_4"]
        tokens = self.to_tokens(last.reshape(b * t, -1, last.shape[-1]))
        visual, queries = self.fusion(tokens, queries.reshape(b * t, *queries.shape[2:]))
        return Fused(self.pixel_decoder(features, visual), tokens, visual, queries, audio.mean(axis=2))

    def masks(self, fused: Fused) -> Float[Array, "b y x"]:
        """Mask probabilities of every frame."""
        return jax.nn.sigmoid(self.mask_head(fused.pixels, fused.audio).union)

    def region(
        self,
        frames: UInt8[Array, "b t y x 3"],
        fused: Fused,
        masks: Float[Array, "f y x"],
        predicted: Float[Array, "f y x"] | None = None,
    ) -> Region | None:
        """MCM: what lies under the masks of f = b * t frames; None where it is off.

        predicted: the model's own masks, where `masks` may be the true ones (training).
        """
        if not self.uses_mcm:
            return None
        flat = frames.reshape(-1, *frames.shape[2:])
        if not self.uses_clip:
            return self.mask_collaboration(images.standardized(flat, images.CENTRED), fused.pixels, masks)
        sizes, pooled = self.clip_vision.config, self.config.region_encoder == "clip_pooled"
        pictures = clip_regions.clip_pictures(flat, masks, sizes.image_size, masked=not pooled)
        features = self.clip_vision(pictures, levels=clip_regions.levels_of(sizes.depth) if pooled else ())
        return self.mask_collaboration(features, masks, masks if predicted is None else predicted)

    def context(self, fused: Fused, region: Region | None, frame_valid: Bool[Array, "b t"]) -> Context:
        """What the text decoder attends to: visual tokens, fusion tokens, region tokens (MCM), prompts (MoHE)."""
        b, t = frame_valid.shape
        tokens = [jnp.concatenate([fused.visual, fused.audio], axis=1)]
        bias, prompts = [jnp.zeros(tokens[0].shape[:2], jnp.float32)], None
        if self.config.visual_skip:
            tokens.append(fused.seen)
            bias.append(jnp.zeros(fused.seen.shape[:2], jnp.float32))
        if region is not None:
            tokens.append(region.tokens)
            bias.append(region.bias)
        if self.config.mohe:
            summary = fused.audio.mean(axis=1) if region is None else region.summary
            both = tokens[0].reshape(b, t, *tokens[0].shape[1:])
            prompts = self.prompts(both, summary.reshape(b, t, -1), fused.sound, frame_valid)
            tokens.append(prompts.tokens)
            bias.append(jnp.zeros(prompts.tokens.shape[:2], jnp.float32))
        return Context(jnp.concatenate(tokens, axis=1), jnp.concatenate(bias, axis=1), prompts)

    def start_words(self, context: Context) -> Any:
        """State of the text decoder before the first word."""
        return self.text_decoder.start(context)

    def next_word(self, ids: Int[Array, "b 1"], context: Context, state: Any, position: Any) -> tuple[Any, Any]:
        """Logits of the next word of every frame, and the new state."""
        return self.text_decoder.step(ids, context, state, position)

    def semantic(self, fused: Fused) -> Float[Array, "f y4 x4 u1"]:
        """Logits of every pixel's class, background first."""
        return self.semantic_head(fused.pixels).astype(jnp.float32)

    def region_embedding(self, region: Region) -> Float[Array, "f k"]:
        """The place of regions in the space that they share with texts (RCC), at unit length."""
        return region.embedding if self.uses_clip else self.consistency.of_region(region.summary)

    def text_embedding(self, ids: Int[Array, "f l"], clip_ids: Any = None) -> Float[Array, "f k"]:
        """The place of texts in that space, at unit length. clip_ids: the texts in CLIP's ids, where CLIP reads."""
        if not self.uses_clip:
            return self.consistency.of_text(ids)
        if clip_ids is None:
            clip_ids = clip_ids_of(ids, self.clip_text.config.vocab_size)
        return clip_regions.unit(self.clip_text(clip_ids)["embedding"])

    def _masks_for_mcm(self, predicted: Float[Array, "b t y x"], batch: Batch, mask_mix: Any) -> Float[Array, "f y x"]:
        if self.has_rng("mask"):
            use_true = jax.random.uniform(self.make_rng("mask"), (predicted.shape[0], 1, 1, 1)) < mask_mix
            use_true &= batch.mask_known[..., None, None]
            predicted = jnp.where(use_true, batch.masks.astype(jnp.float32), predicted)
        return predicted.reshape(-1, *predicted.shape[2:])

    def _with_words(
        self, outputs: Outputs, batch: Batch, context: Context, region: Region | None, train: bool
    ) -> Outputs:
        b, t, length = batch.text_ids.shape
        ids = batch.text_ids.reshape(b * t, length)
        inputs = ids[:, :-1]
        # Positions whose target is padding take no expert capacity.
        mask = (ids[:, 1:] != PAD) & batch.text_known.reshape(-1, 1)
        words = self.text_decoder(inputs, context, mask, train)
        outputs = outputs._replace(
            text_logits=words.logits.reshape(b, t, *words.logits.shape[1:]),
            lm_logits=None if words.lm_logits is None else words.lm_logits.reshape(b, t, *words.lm_logits.shape[1:]),
            scene_logits=None if context.prompts is None else context.prompts.scene_logits,
            router=jax.tree.map(lambda *blocks: jnp.stack(blocks), *words.stats) if self.config.mohe else None,
        )
        if region is None or not self.config.rcc:
            return outputs
        if self.uses_clip:
            clip_ids = None if batch.clip_text_ids.shape[-1] == 0 else batch.clip_text_ids.reshape(b * t, -1)
            seen, scale = region.embedding, jnp.float32(1.0)
            written = self.text_embedding(ids, clip_ids)
        else:
            seen, written, scale = self.consistency(region.summary, ids)
        return outputs._replace(
            region_embedding=seen.reshape(b, t, -1), text_embedding=written.reshape(b, t, -1), embedding_scale=scale
        )


def clip_ids_of(ids: Int[Array, "b l"], vocab_size: int) -> Int[Array, "b l"]:
    """Our ids as ids that CLIP's text tower takes, for a tower without published weights: a word is its own number."""
    start, end = vocab_size - 2, vocab_size - 1
    words = jnp.minimum(ids, start - 1)
    return jnp.where(ids == BOS, start, jnp.where(ids == EOS, end, jnp.where(ids == PAD, 0, words)))
