"""One GPU: PVT-v2-B1 at 224 x 224, everything else our own and trained along, on the built-in world.

    ssu convert path/to/pvt_v2_b1 --out weights/pvt_v2_b1
    ssu train --config configs/small.py --workdir runs/small --config.data.dir=data \
        --config.model.visual.weights=weights/pvt_v2_b1

A row of the paper's tables stands behind a colon: `--config configs/small.py:mcm` (config/rows.py names them).
"""

from ssu_jax.config import Config, rows, sizes


def get_config(row: str = "mohe") -> Config:
    return rows.with_row(sizes.small(), row)
