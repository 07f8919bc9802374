"""Sizes of YAMNet."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class YAMNetConfig:
    """A MobileNet (Howard et al. 2017) on a 96 x 64 log-mel patch, with a head of AudioSet's classes."""

    width_multiplier: float = option(1.0, "widths over the published ones", low=0.03, high=4.0)
    num_classes: int = option(521, "classes of the head", low=1)


VARIANTS = {"521": YAMNetConfig()}
