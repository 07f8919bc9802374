"""The paper's model on the built-in world: PVT-v2-B5, VGGish, CLIP ViT-B/16, a GPT-2 expert.

    ssu convert path/to/pvt_v2_b5 --out weights/pvt_v2_b5  # likewise vggish, clip, gpt2
    ssu train --config configs/base.py --workdir runs/base --config.data.dir=data \
        --config.model.visual.weights=weights/pvt_v2_b5 --config.model.audio.weights=weights/vggish \
        --config.model.clip.weights=weights/clip --config.model.language_model.weights=weights/gpt2

A row of the paper's tables stands behind a colon: `--config configs/base.py:mcm` (config/rows.py names them).
"""

from ssu_jax.config import Config, rows, sizes


def get_config(row: str = "mohe") -> Config:
    return rows.with_row(sizes.base(), row)
