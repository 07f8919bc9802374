"""The paper's model with 64 experts a layer, cut over a pod: at least 16 chips.

    ssu compile-check --config configs/moe_64.py --topology v5e:16x16
    ssu train --config configs/moe_64.py --workdir runs/moe_64 --config.data.dir=data

Four chips share the experts and four all other matrices; what is left splits the batch, of which every chip takes a
part: `train.batch_size` must be a multiple of the chips. Tokens travel to the chips of their experts. It computes in
bfloat16, and the blocks of an encoder are one loop, so that it compiles in minutes. Published weights and rows of the
paper's tables are named as in configs/base.py.
"""

from ssu_jax.config import Config, rows, sizes


def get_config(row: str = "mohe") -> Config:
    config = rows.with_row(sizes.base(), row)
    config.name = "moe_64"
    config.model.moe.num_experts, config.model.moe.num_groups = 64, 8
    config.model.moe.transport = "all_to_all"
    config.model.dtype, config.model.scan_blocks = "bfloat16", True
    config.mesh.fsdp, config.mesh.expert = 4, 4
    config.train.batch_size = 256
    return config
