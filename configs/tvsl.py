"""T-VSL on the small trio: duets of the made world, one heat map a word.

    ssu train --config configs/trio.py --workdir runs/trio --config.data.dir=data
    ssu train --config configs/tvsl.py --workdir runs/tvsl --config.data.dir=data --config.train.init_from=runs/trio

`--config configs/tvsl.py:released` behaves as the public code does (models/tvsl/tvsl.py).
"""

from ssu_jax.config import Config, sizes


def get_config(mode: str = "corrected") -> Config:
    config = sizes.tvsl()
    config.tvsl.mode = mode
    return config
