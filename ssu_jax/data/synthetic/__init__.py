"""The built-in world: made scenes with exact masks, sounds and sentences, computed, not downloaded (our design)."""

from ssu_jax.data.synthetic.plan import SPLITS
from ssu_jax.data.synthetic.world import make_clip, make_counterfactual

# Part of every manifest: goes up when a clip of the same seed looks, sounds or reads differently.
VERSION = 1

__all__ = ["SPLITS", "VERSION", "make_clip", "make_counterfactual"]
