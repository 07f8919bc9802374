"""SSUFormer on f-Music: 3,976 clips of 22 instruments.

    ssu train --config configs/f_music.py --workdir runs/f_music --config.data.dir=records/f_music \
        --config.model.visual.weights=weights/pvt_v2_b5 --config.model.audio.weights=weights/vggish \
        --config.model.clip.weights=weights/clip --config.model.language_model.weights=weights/gpt2
    ssu evaluate --checkpoint runs/f_music --records records/f_music --table

Published (comparisons_on_music.png of the project page); a row stands behind a colon: `configs/f_music.py:ssu_s`.

    row             mIoU    F-score  BLEU    ROUGE-L  METEOR
    ssu_s           0.5987  0.7552   -       -        -
    ssu_d           -       -        0.3558  0.4497   0.3380
    mohe (default)  0.6280  0.7792   0.4049  0.4882   0.4002

Read them with care. The authors' masks, sentences and splits are not public, so records of one's own make another
test set. The order of BLEU, the tokenizer, thresholds and averages behind the scores are not given. The same figures
stood in the first version of the tables (May 2025), when the model had no mixture of experts: what MoHE adds is not
shown by them. AVIS has the same mIoU on both sets, which may be a slip in copying.

The schedule is a proposal, for the paper gives none: 60 epochs in batches of 8 with the visual encoder at rest for
the first 10 (AVSegFormer's habit), AdamW at 1e-4 and the visual encoder at a tenth (COMBO's), counted for 80 % of
the clips in train.
"""

from ssu_jax.config import Config, labels, rows, sizes


def get_config(row: str = "mohe") -> Config:
    config = sizes.base()
    config.name = "f_music"
    config.data.classes = labels.F_MUSIC_CLASSES
    config.train.num_steps, config.train.freeze_steps, config.train.warmup_steps = 24000, 4000, 1000
    config.train.learning_rate, config.train.backbone_learning_rate = 1e-4, 0.1
    config.train.batch_size, config.train.checkpoint_every_steps = 8, 1000
    config.eval.every_steps, config.eval.num_clips = 2000, 0
    return rows.with_row(config, row)
