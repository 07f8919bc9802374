"""Evaluation during training."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class EvalConfig:
    """How often, on how much; the best checkpoint has the highest val mIoU + METEOR, of pre-training the least loss."""

    every_steps: int = option(800, "steps between evaluations on the val split; 0 never evaluates", low=0)
    num_clips: int = option(48, "clips of the val split that are used; 0 takes all", low=0)
    batch_size: int = option(16, "clips a step; the scores do not depend on it", low=1)
