"""SSUFormer on f-Lifescene: 6,156 clips of 61 sounds of daily life. The paper's ablation is on this set.

    ssu train --config configs/f_lifescene.py --workdir runs/f_lifescene --config.data.dir=records/f_lifescene \
        --config.model.visual.weights=weights/pvt_v2_b5 --config.model.audio.weights=weights/vggish \
        --config.model.clip.weights=weights/clip --config.model.language_model.weights=weights/gpt2
    ssu evaluate --checkpoint runs/f_lifescene --records records/f_lifescene --table

Published (comparisons_on_life.png and ablation.png of the project page); a row stands behind a colon:
`configs/f_lifescene.py:mcm`.

    row             mIoU    F-score  BLEU    ROUGE-L  METEOR
    baseline        0.4892  0.6510   0.1331  0.1285   0.1052
    focal           0.5150  0.6862   0.3201  0.2878   0.4531
    mcm             0.6132  0.6947   0.4429  0.4590   0.4274
    rcc, avuformer  0.6141  0.7087   0.4621  0.4728   0.4452
    mohe (default)  0.6530  0.7368   0.5290  0.5388   0.5050
    ssu_s           0.6320  0.7256   -       -        -
    ssu_d           -       -        0.5169  0.5025   0.4815

Read them with care. In the first version of the ablation (May 2025) the figures of the last two rows stood beside
"+ MCM" and "+ RCC", and there was no mixture of experts: the labels have moved, a row was put in, the end is the same,
so the gain of MoHE is not shown by them. Focal alone lifts METEOR from 0.105 to 0.453 while BLEU stays at 0.32, more
than a loss on masks can do: here it acts on words too. The authors' masks, sentences and splits are not public; the
order of BLEU, the tokenizer, thresholds and averages are not given. 0.5697 is both AVSBench's mIoU and AVIS's F-score,
which may be a slip in copying.

The schedule is a proposal, as in f_music.py, counted for this set's size.
"""

from ssu_jax.config import Config, labels, rows, sizes


def get_config(row: str = "mohe") -> Config:
    config = sizes.base()
    config.name = "f_lifescene"
    config.data.classes = labels.F_LIFESCENE_CLASSES
    config.train.num_steps, config.train.freeze_steps, config.train.warmup_steps = 37000, 6200, 1000
    config.train.learning_rate, config.train.backbone_learning_rate = 1e-4, 0.1
    config.train.batch_size, config.train.checkpoint_every_steps = 8, 1000
    config.eval.every_steps, config.eval.num_clips = 3000, 0
    return rows.with_row(config, row)
