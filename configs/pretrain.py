"""The two encoders of nano, pre-trained on video without labels: any records will do, their labels are not looked at.

    ssu prepare synthetic --out data --split train --num-clips 4000 --num-shards 8
    ssu prepare synthetic --out data --split val --num-clips 200 --num-shards 2
    ssu train --config configs/pretrain.py --workdir runs/pretrain --config.data.dir=data
    ssu train --config configs/nano.py --workdir runs/nano --config.data.dir=data \
        --config.train.init_from=runs/pretrain

19 minutes on two processor cores that others used too. Expect on val, at the end: mean squared error of hidden squares
0.685 (`pictures`) and 0.747 (`sounds`), `pairs` 3.383, `recall` 0.058 (0.035 by chance). A short run of nano that
begins with it gains 0.06 to 0.07 of mIoU (docs/ablation.md).

What is learned: models/pretraining. The sizes of `model.visual`, `model.audio` and `model.width` must be those of the
run that begins with it.
"""

from ssu_jax.config import Config, sizes


def get_config() -> Config:
    config = sizes.nano()
    config.name, config.family = "pretrain", "pretraining"
    config.train.num_steps, config.train.batch_size, config.train.learning_rate = 1800, 32, 1.5e-3
    config.train.picture_every_steps = 0
    config.eval.every_steps, config.eval.num_clips, config.eval.batch_size = 400, 0, 32
    return config
