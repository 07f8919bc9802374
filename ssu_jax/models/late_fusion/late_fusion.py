"""Tags times segments: published networks joined by a class map, for real video without any training (our design).

YAMNet scores the sounds of every second, DeepLabV3 the class of every pixel; the class map says which of them
belong together. A source's mask is what is seen of it while it is heard; several sources keep their own. What is
heard and not seen has no mask and no sentence, only a place among the facts, from which the notes are made.

Both decisions have two gates (`steady`): above the upper one a second counts, above the lower one it counts beside
a second that does. So a bark a second long stays a second long, and a source at the edge does not flicker.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from ssu_jax.config.encoders.deeplab_v3 import DeepLabV3Config
from ssu_jax.config.encoders.yamnet import YAMNetConfig
from ssu_jax.config.late_fusion import LateFusionConfig
from ssu_jax.config.published_classes import VOC
from ssu_jax.encoders.deeplab_v3 import DeepLabV3, resized_corners
from ssu_jax.encoders.yamnet import YAMNet
from ssu_jax.layers.images import BYTES, resized, standardized
from ssu_jax.models.late_fusion import facts
from ssu_jax.models.late_fusion.class_map import ClassMap, class_map
from ssu_jax.models.late_fusion.sentences import Row, pack
from ssu_jax.types import Batch, Outputs

_FAR = 1e4  # logits that no other one reaches
_SHARPNESS = 4.0  # of the mask: logits a nat of the segmenter's margin
_COLOUR_CELLS = 129  # rows and columns on which colours are counted


class Fused(NamedTuple):
    """What was decided, u sources of the class map. coarse: the segmenter's cells, a 16th of its input a side."""

    scores: Any  # float32 [b, 521]: YAMNet's
    heard: Any  # bool [b, s]: sounds of the class map, s of them
    sounding: Any  # bool [b, s]: those of them whose source is seen
    active: Any  # bool [b, u]: the sources of these
    coarse: Any  # float32 [b, y', x', 21]: logits, lower for objects that are not heard, specks taken out
    regions: Any  # bool [b, u, y', x']: what is seen of every source, without specks
    parts: Any  # int32 [b, u]: of how many parts it is


class LateFusion(nn.Module):
    """Frames and log-mel patches of t seconds -> Outputs, and the facts that sentences are written from.

    No parameters of its own: "yamnet" and "deeplab_v3" hold the published ones. Frames of any size; a frame that
    does not have the segmenter's is resized. Every second is computed alone but for the gates' neighbours.
    """

    config: LateFusionConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.yamnet = YAMNet(YAMNetConfig(), self.dtype)
        self.deeplab_v3 = DeepLabV3(DeepLabV3Config(), self.dtype)

    def __call__(self, batch: Batch) -> Outputs:
        """As SSUFormer's: mask_logits; audible_logits are YAMNet's [b, t, 521], semantic_logits DeepLab's coarse
        [b, t, y', x', 21], query_mask_logits +-1 for what is seen of every source and heard.
        """
        masks, _, fused = self._look(batch.frames, batch.log_mel, batch.frame_valid)
        b, t = batch.frames.shape[:2]
        own = jnp.where(fused.regions & fused.active[..., None, None], 1.0, -1.0)
        return Outputs(
            mask_logits=masks,
            text_logits=None,
            audible_logits=_logit(fused.scores).reshape(b, t, -1),
            semantic_logits=fused.coarse.reshape(b, t, *fused.coarse.shape[1:]),
            query_mask_logits=own.reshape(b, t, *own.shape[1:]),
        )

    def describe(
        self, frames: UInt8[Array, "b t y x 3"], log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t y x"], Int[Array, "b t l"]]:
        """Mask probabilities, and the facts of every second (see sentences.py), which its sentence is decoded from."""
        masks, rows, _ = self._look(frames, log_mel, frame_valid)
        return jax.nn.sigmoid(masks), rows

    def _look(self, frames, log_mel, frame_valid):
        (b, t, y, x), size = frames.shape[:4], self.config.image_size
        images = frames.reshape(b * t, y, x, 3)
        if (y, x) != (size, size):
            images = resized(images.astype(jnp.float32), size, size)
        valid = frame_valid.reshape(b * t)
        scores = self.yamnet(log_mel.reshape(b * t, *log_mel.shape[2:]))["scores"]
        # A frame at a time: its wide inner maps stay in the processor's cache.
        one_by_one = nn.scan(_segment, variable_broadcast="params", split_rngs={"params": False})
        _, coarse = one_by_one(self, None, images)
        levels = jnp.where(valid, _level(log_mel.reshape(b * t, *log_mel.shape[2:])), -jnp.inf)
        fused = self._fuse(scores, levels, coarse, t)
        rows = self._facts(fused, images)
        masks = jax.lax.map(lambda each: _mask(*each, size), (fused.coarse, self._classes(fused.active)))
        masks = masks if (y, x) == (size, size) else resized(masks[..., None], y, x)[..., 0]
        return masks.reshape(b, t, y, x), rows.reshape(b, t, -1), fused

    def _fuse(self, scores, levels, coarse, t: int) -> Fused:
        config, table = self.config, class_map()
        heard = self._heard(scores, levels, t)
        wanted = (heard.astype(jnp.float32) @ _source_of_sound(table) @ _classes_of_source(table)) > 0
        # What is heard tells which object a pixel belongs to, not whether it belongs to any.
        others = ~wanted & wanted.any(1, keepdims=True) & (np.arange(len(VOC)) > 0)[None]
        coarse = coarse.astype(jnp.float32) - config.heard_bias * others[:, None, None].astype(jnp.float32)
        coarse, regions, parts, largest = _without_specks(coarse, table)
        seen = steady(regions.mean((2, 3)), jnp.float32(config.seen_area), jnp.float32(config.kept_area), t)
        # A sound may ask for a source that is close: whoever is far off is seldom the one who speaks.
        areas = np.asarray([sound.area for sound in table.sounds], np.float32)
        close = largest / (coarse.shape[1] * coarse.shape[2]) @ _source_of_sound(table).T >= areas[None]
        sounding = heard & close & (seen.astype(jnp.float32) @ _source_of_sound(table).T > 0)
        active = sounding.astype(jnp.float32) @ _source_of_sound(table) > 0
        return Fused(scores, heard, sounding, active, coarse, regions, parts)

    def _heard(self, scores, levels, t: int) -> Bool[Array, "b s"]:
        """Sounds above their gates, in seconds above the level gate; a gap of one second is closed if it is as loud."""
        config, table = self.config, class_map()
        loud = (levels > config.level_db)[:, None]
        on, keep = (np.asarray([getattr(sound, gate) for sound in table.sounds], np.float32) for gate in ("on", "keep"))
        found = steady(jnp.where(loud, _sound_scores(scores, table), 0.0), on, keep, t) & loud
        before, after = (_beside(found, t, step) for step in (-1, 1))
        quieter = jnp.minimum(*(_beside(levels[:, None], t, step, -jnp.inf) for step in (-1, 1)))
        found |= before & after & loud & (levels[:, None] > quieter - config.bridged_db)
        hidden = (found.astype(jnp.float32) @ table.hides.astype(np.float32)) > 0
        return found & ~hidden

    def _classes(self, active: Bool[Array, "b u"]) -> Bool[Array, "b v"]:
        return (active.astype(jnp.float32) @ _classes_of_source(class_map())) > 0

    def _facts(self, fused: Fused, images) -> Int[Array, "b l"]:
        config, table = self.config, class_map()
        gates = np.asarray([sound.on for sound in table.sounds], np.float32)
        sound_scores = _sound_scores(fused.scores, table)
        # How far above its gate a sound is decides which sources and verbs are named, should there be too many.
        force = jnp.where(fused.sounding, sound_scores / gates[None], 0.0)  # [b, s]
        by_source = _source_of_sound(table).T[None] * force[:, None]  # [b, u, s]
        force_of_source = jnp.where(fused.active, by_source.max(-1), 0.0)
        force, chosen = jax.lax.top_k(force_of_source, min(config.max_sources, len(table.sources)))
        colours = resized(images.astype(jnp.float32) / 255.0, _COLOUR_CELLS, _COLOUR_CELLS)
        sources = [
            self._source_facts(fused, by_source, colours, chosen[:, place], force[:, place] > 0)
            for place in range(chosen.shape[1])
        ]
        return pack(Row(jnp.stack(sources, 1), self._sounds(fused)))

    def _source_facts(self, fused: Fused, by_source, colours, chosen, exists) -> Int[Array, "b 7"]:
        table, here = class_map(), jnp.arange(len(chosen))
        force, verbs = jax.lax.top_k(by_source[here, chosen], 2)
        region = fused.regions[here, chosen]
        fine = resized(region[..., None].astype(jnp.float32), _COLOUR_CELLS, _COLOUR_CELLS)[..., 0] > 0.5
        classes = jnp.asarray(_classes_of_source(table))[chosen] > 0  # [b, v]
        best = jnp.argmax(jnp.where(classes[:, None, None], fused.coarse, -jnp.inf), -1)
        votes = ((best[..., None] == jnp.arange(len(VOC))[None, None, None]) & region[..., None]).sum((1, 2))
        seen = jnp.argmax(votes, -1)
        colour = facts.colour_of(colours, fine, self.config.colour_share)
        colour = jnp.where(jnp.asarray(table.coloured)[seen], colour, 0)
        columns = (
            1 + chosen, 1 + verbs[:, 0], jnp.where(force[:, 1] > 0, 1 + verbs[:, 1], 0), seen,
            fused.parts[here, chosen], facts.place_of(region), colour,
        )  # fmt: skip
        return jnp.where(exists[:, None], jnp.stack(columns, 1), 0).astype(jnp.int32)

    def _sounds(self, fused: Fused) -> Int[Array, "b h 2"]:
        """The loudest named classes: 1 + AudioSet class, and whether their source is active; 0 where none is left."""
        config, table = self.config, class_map()
        in_map = np.zeros((len(table.sounds), fused.scores.shape[1]), np.float32)
        for number, sound in enumerate(table.sounds):
            in_map[number, list(sound.heard)] = 1.0
        seen = (fused.sounding.astype(jnp.float32) @ in_map) > 0
        # Of a sound in the map its best class stands for all.
        of_map = fused.scores[:, None] * in_map[None]
        best = (of_map == of_map.max(-1, keepdims=True)) & (of_map > 0) & fused.heard[..., None]
        alone = (fused.scores >= config.named_score) & (table.named & ~in_map.any(0))[None]
        candidates = jnp.where(best.any(1) | alone, fused.scores, 0.0)
        force, classes = jax.lax.top_k(candidates, config.max_sounds)
        is_seen = jnp.take_along_axis(seen, classes, 1)
        both = jnp.stack([1 + classes, is_seen.astype(jnp.int32)], -1)
        return jnp.where(force[..., None] > 0, both, 0).astype(jnp.int32)


def _segment(model: LateFusion, carry: None, image) -> tuple[None, Array]:
    return carry, model.deeplab_v3(standardized(image[None], BYTES))["coarse_logits"][0]


def steady(scores: Float[Array, "b u"], on: Any, keep: Any, t: int) -> Bool[Array, "b u"]:
    """Whether a score counts: at `on` or more, or at `keep` or more beside a second that counts (hysteresis).

    b = clips x t; on, keep: scalars or [u].
    """
    scores = scores.reshape(-1, t, scores.shape[1])
    shape = (1, 1, -1) if jnp.ndim(on) else ()
    above, enough = scores >= jnp.reshape(on, shape), scores >= jnp.reshape(keep, shape)

    def spread(counts, _):
        ahead = jnp.pad(counts[:, 1:], ((0, 0), (0, 1), (0, 0)))
        behind = jnp.pad(counts[:, :-1], ((0, 0), (1, 0), (0, 0)))
        return counts | (enough & (ahead | behind)), None

    counts, _ = jax.lax.scan(spread, above, None, length=t)
    return counts.reshape(-1, scores.shape[2])


def _beside(values: Shaped[Array, "b u"], t: int, step: int, edge: Any = False) -> Shaped[Array, "b u"]:
    """Of the second before (step -1) or after (1); `edge` at the ends of a clip."""
    clips = values.reshape(-1, t, values.shape[1])
    padded = jnp.pad(clips, ((0, 0), (1, 1), (0, 0)), constant_values=edge)
    return padded[:, 1 + step : 1 + step + t].reshape(values.shape)


def _level(log_mel: Float[Array, "b m f"]) -> Float[Array, "b"]:
    """Mean mel magnitude of a second in dB."""
    return 20.0 * jnp.log10(jnp.exp(log_mel).mean((1, 2)))


def _without_specks(coarse: Float[Array, "b y x v"], table: ClassMap) -> tuple[Array, Array, Array, Array]:
    """Logits whose specks are background, regions bool [b, u, y, x], their parts and largest part's cells [b, u]."""
    classes = _classes_of_source(table)
    of_class = jnp.argmax(coarse, -1)[..., None] == jnp.arange(len(VOC))[None, None, None]
    regions = jnp.einsum("byxv,uv->buyx", of_class.astype(jnp.float32), classes) > 0
    b, u = regions.shape[:2]
    kept, parts, largest = (
        each.reshape(b, u, *each.shape[1:]) for each in facts.parts_of(regions.reshape(b * u, *regions.shape[2:]))
    )
    specks = jnp.einsum("buyx,uv->byxv", (regions & ~kept).astype(jnp.float32), classes) > 0
    return jnp.where(specks & of_class, -_FAR, coarse), kept, parts, largest.astype(jnp.float32)


def _sound_scores(scores: Float[Array, "b v"], table: ClassMap) -> Float[Array, "b s"]:
    return jnp.stack([scores[:, np.asarray(sound.heard)].max(1) for sound in table.sounds], 1)


def _source_of_sound(table: ClassMap) -> np.ndarray:
    """float32 [s, u], 1 where a source makes a sound."""
    return np.eye(len(table.sources), dtype=np.float32)[[sound.source for sound in table.sounds]]


def _classes_of_source(table: ClassMap) -> np.ndarray:
    """float32 [u, 21], 1 where a source is seen as a VOC class."""
    rows = np.zeros((len(table.sources), len(VOC)), np.float32)
    for number, source in enumerate(table.sources):
        rows[number, list(source.seen)] = 1.0
    return rows


def _mask(coarse: Float[Array, "y1 x1 v"], wanted: Bool[Array, "v"], size: int) -> Float[Array, "y x"]:
    """Mask logits: by how much the best wanted class of a pixel is ahead of the best other one."""
    logits = resized_corners(coarse[None], size, size)[0]
    ours = jnp.where(wanted[None, None], logits, -_FAR).max(-1)
    others = jnp.where(wanted[None, None], -_FAR, logits).max(-1)
    return jnp.clip(_SHARPNESS * (ours - others), -30.0, 30.0)


def _logit(probability: Float[Array, "b v"]) -> Float[Array, "b v"]:
    clipped = jnp.clip(probability, 1e-7, 1 - 1e-7)
    return jnp.log(clipped) - jnp.log1p(-clipped)
