"""The small trio: image, sound and words of the made world in one space, for T-VSL to stand on.

    ssu prepare synthetic --out data --split train --num-clips 10000 --num-shards 16
    ssu prepare synthetic --out data --split val --num-clips 200 --num-shards 2
    ssu train --config configs/trio.py --workdir runs/trio --config.data.dir=data

What is learned: models/tvsl/trio_training.py. It begins with the encoders of the shipped nano, which have learned from
masks: as AudioCLIP begins with networks that have learned from labelled images. From words alone the image tower
learned nothing in 400 steps (`--config.train.init_from=` tries that).
"""

from ssu_jax.config import Config, sizes


def get_config() -> Config:
    return sizes.trio()
