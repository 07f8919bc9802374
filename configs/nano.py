"""SSUFormer nano on the built-in world: the model that ships with the package.

    ssu prepare synthetic --out data --split train --num-clips 6000 --num-shards 8
    ssu prepare synthetic --out data --split val --num-clips 200
    ssu train --config configs/nano.py --workdir runs/nano --config.data.dir=data
"""

from ssu_jax.config import Config, sizes


def get_config() -> Config:
    return sizes.nano()
