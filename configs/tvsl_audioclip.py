"""T-VSL at the size of its paper, on AudioCLIP: 33.58 M of 168 M parameters learn.

    ssu convert AudioCLIP-Full-Training.pt --kind audioclip --out weights/audioclip \
        --tokenizer bpe_simple_vocab_16e6.txt.gz
    ssu prepare vggsound --source VGGSound --out records/vggsound --sample-rate 44100
    ssu train --config configs/tvsl_audioclip.py --workdir runs/tvsl --config.data.dir=records/vggsound \
        --config.tvsl.weights=weights/audioclip

`:released` behaves as the public code does (models/tvsl/tvsl.py). Classes are VGG-SS's 221; for other sets name theirs
in `data.classes`. The optimizer's figures are the release's; its epochs are told, the clips of its list are not: the
number of steps is ours.
"""

from ssu_jax.config import Config, sizes


def get_config(mode: str = "corrected") -> Config:
    config = sizes.tvsl_audioclip()
    config.tvsl.mode = mode
    return config
