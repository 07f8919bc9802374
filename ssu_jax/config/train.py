"""Optimization, checkpoints and logging."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class TrainConfig:
    """One run: the same config, data and device count give the same weights, bit for bit."""

    num_steps: int = option(3200, "optimizer steps", low=1)
    batch_size: int = option(16, "clips a step, over all devices", low=1)
    grad_accumulation: int = option(1, "slices of the batch whose gradients are averaged", low=1)
    seed: int = option(0, "source of every random key and of the data order", low=0)
    init_from: str = option("", "working directory or sealed step of an earlier run, pre-training among them, an "
                                "exported folder, or shipped:nano: its parameters of the same name are what this run "
                                "begins with; read when training begins")  # fmt: skip
    learning_rate: float = option(1.5e-3, "peak of the schedule", low=0.0, high=1.0)
    warmup_steps: int = option(100, "steps of linear warm-up", low=0)
    final_learning_rate: float = option(0.01, "end of the cosine, share of the peak", low=0.0, high=1.0)
    weight_decay: float = option(0.05, "AdamW decay, on matrices only", low=0.0, high=1.0)
    beta2: float = option(0.98, "AdamW second-moment decay", low=0.0, high=1.0)
    clip_norm: float = option(1.0, "largest global norm of the gradient", low=0.0)
    ema_decay: float = option(0.998, "decay of the averaged weights that evaluation uses", low=0.0, high=1.0)
    freeze: tuple[str, ...] = option(
        (), "modules that do not learn, by name (clip_vision) or pattern (*/bias): no gradient, no moments",
        may_be_empty=True)  # fmt: skip
    backbones: tuple[str, ...] = option(
        ("visual_encoder", "audio_encoder/vggish", "clip_vision", "clip_text", "text_decoder/lm/model"),
        "modules, by name or pattern, that the next three options are for")  # fmt: skip
    backbone_learning_rate: float = option(1.0, "learning rate of the backbones over that of the rest",
                                           low=0.0, high=100.0)  # fmt: skip
    layer_decay: float = option(1.0, "learning rate of a backbone's block over that of the block above it; 1 is off",
                                low=0.01, high=1.0)  # fmt: skip
    freeze_steps: int = option(0, "first steps in which the backbones stay as they are", low=0)
    ground_truth_mask_share: float = option(0.6, "share of the run in which MCM moves from true to predicted masks",
                                            low=0.0, high=1.0)  # fmt: skip
    log_every_steps: int = option(20, "steps between log lines", low=1)
    checkpoint_every_steps: int = option(200, "steps between checkpoints", low=1)
    picture_every_steps: int = option(800, "steps between TensorBoard pictures; 0 draws none", low=0)
    max_skipped_in_row: int = option(10, "non-finite updates in a row that end the run", low=1)
    max_skipped_steps: int = option(100, "non-finite updates in all that end the run", low=1)
    stall_seconds: int = option(600, "seconds without a finished step that end the run, exit code 76; 0 is never",
                               low=0)  # fmt: skip
    long_stall_seconds: int = option(3600, "the same where something may be compiled or written: the first step, an "
                                           "evaluation, a checkpoint", low=1)  # fmt: skip
    peer_timeout_seconds: int = option(6, "seconds without a sign of life of one of several processes that end all",
                                       low=2)  # fmt: skip
