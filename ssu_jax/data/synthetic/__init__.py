"""The built-in world: made scenes with exact masks, sounds and sentences, computed, not downloaded (our design)."""

from ssu_jax.data.synthetic.plan import SPLITS
from ssu_jax.data.synthetic.world import make_clip, make_counterfactual

__all__ = ["SPLITS", "make_clip", "make_counterfactual"]
