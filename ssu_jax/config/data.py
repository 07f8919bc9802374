"""Where the records lie and how they become batches."""

import dataclasses

from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.config.options import option


@dataclasses.dataclass
class AugmentConfig:
    """Training-time changes; each keeps frames, masks, sound, sentence and source list consistent."""

    flip_probability: float = option(0.5, "share of clips mirrored left to right", low=0.0, high=1.0)
    crop_min_scale: float = option(0.85, "smallest side of a random crop, share of the frame", low=0.1, high=1.0)
    brightness: float = option(0.1, "largest change of brightness, share of full scale", low=0.0, high=0.5)
    contrast: float = option(0.1, "largest relative change of contrast", low=0.0, high=0.5)
    gain_db: float = option(6.0, "largest change of the sound's level, dB", low=0.0, high=40.0)
    time_shift_seconds: float = option(0.1, "largest shift of the sound, seconds", low=0.0, high=0.4)


@dataclasses.dataclass
class DataConfig:
    """Records, input sizes and class names."""

    dir: str = option("", "directory of the record shards and their manifests, or a URL (gs://bucket/folder); several, "
                          "separated by commas, are one set")  # fmt: skip
    weights: tuple[float, ...] = option((), "of several directories the share of each in the training clips, in any "
                                            "unit; none: as many as it holds", low=1e-6, may_be_empty=True)  # fmt: skip
    train_split: str = option("train", "split that is trained on")
    val_split: str = option("val", "split that is evaluated during training")
    num_workers: int = option(0, "reader processes; 0 reads in threads of the main process", low=0, high=64)
    verify_shards: bool = option(False, "compare every shard's sha256 with the manifest before training")
    num_frames: int = option(10, "frames of a sample, one a second", low=1, high=600)
    train_seconds: int = option(5, "seconds of a clip that a training step sees, a random stretch; 0 takes all of it: "
                                   "more clips for the same work", low=0, high=600)  # fmt: skip
    image_size: int = option(96, "rows and columns of a frame, pixels", low=32, high=1024)
    sample_rate: int = option(16000, "samples a second of the sound, Hz", low=8000, high=48000)
    log_offset: float = option(0.01, "added to the mel magnitude before the logarithm: 0.01 VGGish, 0.001 YAMNet",
                               low=1e-6, high=1.0)  # fmt: skip
    max_text_tokens: int = option(32, "longest sentence with [BOS] and [EOS], tokens", low=4, high=256)
    classes: tuple[str, ...] = option(SYNTHETIC_CLASSES, "names of the source classes, in label order")
    other_classes: str = option("refused", "records with a class that `classes` does not name: refused, or, by T-VSL "
                                           "alone, passed_over", choices=("refused", "passed_over"))  # fmt: skip
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
