"""SSUFormer nano on the built-in world: the model that ships with the package.

    ssu prepare synthetic --out data --split train --num-clips 10000 --num-shards 16
    ssu prepare synthetic --out data --split val --num-clips 200 --num-shards 2
    ssu train --config configs/nano.py --workdir runs/nano --config.data.dir=data

About 6 minutes for the data and 48 for the training on two processor cores. Expect, on the first 48 clips of val,
mIoU 0.86, exact match 0.93 and BLEU-4 0.95 at the end (0.71, 0.73 and 0.80 after 800 of the 3,200 steps).

A row of the paper's tables stands behind a colon: `--config configs/nano.py:mcm` (config/rows.py names them).
"""

from ssu_jax.config import Config, rows, sizes


def get_config(row: str = "mohe") -> Config:
    return rows.with_row(sizes.nano(), row)
