"""A small model with as many experts as one likes, at the same active size: what `benchmarks/moe_sweep.py` trains.

    ssu train --config configs/moe_sweep.py:16 --workdir runs/16 --config.data.dir=data
    ssu train --config configs/moe_sweep.py:8x4 --workdir runs/8x4 --config.data.dir=data

Behind the colon stands E, or E x g. A token visits 2 g of E g experts, each 128 / g wide: every model multiplies
alike. With E = 1 there is one expert, 256 wide, the dense model. Tokens are never dropped: what is compared is how many
experts there are, not how many slots.
"""

from ssu_jax.config import Config, sizes
from ssu_jax.types import UserError

TOP_K, HIDDEN = 2, 128


def get_config(experts: str = "8") -> Config:
    """Raises UserError for what is not E or ExG, or where 128 does not divide by G."""
    count, _, finer = experts.partition("x")
    if not (count.isdecimal() and (finer or "1").isdecimal() and int(count) and int(finer or 1)):
        raise UserError(f"moe_sweep: wanted E or ExG behind the colon, as in configs/moe_sweep.py:8x4, got {experts!r}")
    num_experts, finer = int(count), int(finer or 1)
    if HIDDEN % finer:
        raise UserError(f"moe_sweep: an expert is {HIDDEN} wide and divides by 1, 2, 4 ... {HIDDEN}, got {finer}")
    config = sizes.nano()
    config.name = f"moe_sweep_{num_experts}x{finer}"
    config.data.image_size, config.data.train_seconds = 64, 3
    config.model.width, config.model.pixel_width = 64, 24
    config.model.visual.stem_width, config.model.visual.widths = 8, (16, 32, 48, 64)
    config.model.visual.depths, config.model.audio.widths = (1, 1, 1, 1), (16, 24, 32)
    config.model.language_model.enabled = False
    top_k = min(TOP_K, num_experts) * finer
    config.model.moe.num_experts, config.model.moe.top_k = num_experts * finer, top_k
    config.model.moe.hidden = TOP_K * HIDDEN // top_k
    config.model.moe.dropless = True
    config.train.batch_size, config.train.log_every_steps, config.train.warmup_steps = 8, 5, 20
    config.train.picture_every_steps = config.eval.every_steps = 0
    return config
