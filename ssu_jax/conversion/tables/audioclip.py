"""AudioCLIP: its published state dict, in which CLIP's parts have openai's names.

Towers are `visual.` (a residual network), `transformer.` and what stands beside it (text), and `audio.`. Statistics of
batch norms and the window of the audio tower are carried. Two things hold nothing and are not: counters of batches,
and `audio.fbsp.bias`, an empty tensor. A reader that wants every name must be told that they are absent (torch's
strict=False, which AudioCLIP's own reader says).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.audioclip import AudioCLIPConfig
from ssu_jax.config.encoders.clip import LEGACY_END_ID, CLIPTextConfig
from ssu_jax.config.encoders.clip_resnet import STRIDE, CLIPResNetConfig
from ssu_jax.config.encoders.esresnet import ESResNetConfig
from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table
from ssu_jax.conversion.tables.clip import HEAD_WIDTH, tokenizer
from ssu_jax.encoders.audioclip import AudioCLIP
from ssu_jax.types import UserError

STAGES = (1, 2, 3, 4)
EMPTY_BIAS = "audio.fbsp.bias"
CAVEAT = f"the counters num_batches_tracked and the empty {EMPTY_BIAS} are not written: read this with strict=False"


def norm(theirs: str, ours: str) -> Table:
    """A batch norm with its statistics; its counter is no weight."""
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    rules = (Rule(f"{theirs}.{a}", f"{ours}/{b}") for a, b in names.items())
    return (*rules, Ignored(f"{theirs}.num_batches_tracked"))


def unit(theirs: tuple[str, str], ours: str) -> Table:
    """A convolution without bias and its batch norm."""
    return Rule(f"{theirs[0]}.weight", f"{ours}/kernel", "conv"), *norm(theirs[1], f"{ours}/norm")


def biased(theirs: str, ours: str, transform: str) -> Table:
    return Rule(f"{theirs}.weight", f"{ours}/kernel", transform), Rule(f"{theirs}.bias", f"{ours}/bias")


def bottlenecks(tower: str, ours: str) -> Table:
    """All blocks of a residual network."""
    theirs, block = tower + ".layer{stage}.{number}.", ours + "/stage_{stage}_block_{number}/"
    rules = unit((f"{theirs}downsample.0", f"{theirs}downsample.1"), f"{block}shortcut")
    for number, layer in enumerate(("reduce", "spatial", "expand"), start=1):
        rules += unit((f"{theirs}conv{number}", f"{theirs}bn{number}"), block + layer)
    return rules


def image() -> Table:
    rules = bottlenecks("visual", "image")
    for number in (1, 2, 3):
        rules += unit((f"visual.conv{number}", f"visual.bn{number}"), f"image/stem_{number}")
    for theirs, ours in {"q_proj": "query", "k_proj": "key", "v_proj": "value", "c_proj": "out"}.items():
        rules += biased(f"visual.attnpool.{theirs}", f"image/pool/{ours}", "dense")
    return *rules, Rule("visual.attnpool.positional_embedding", "image/pool/positions")


def text() -> Table:
    theirs, ours = "transformer.resblocks.{i}.", "text/block_{i}/"
    joint = "attention/query_key_value"
    rules = (
        Rule("token_embedding.weight", "text/token/embedding"),
        Rule("positional_embedding", "text/positions"),
        Rule(f"{theirs}attn.in_proj_weight", f"{ours}{joint}/kernel", "dense"),
        Rule(f"{theirs}attn.in_proj_bias", f"{ours}{joint}/bias"),
        Rule("text_projection", "text/projection/kernel"),
    )
    for a, b in {"attn.out_proj": "attention/out", "mlp.c_fc": "mlp/fc1", "mlp.c_proj": "mlp/fc2"}.items():
        rules += biased(theirs + a, ours + b, "dense")
    norms = {f"{theirs}ln_1": f"{ours}norm_1", f"{theirs}ln_2": f"{ours}norm_2", "ln_final": "text/final_norm"}
    for a, b in norms.items():
        rules += Rule(f"{a}.weight", f"{b}/scale"), Rule(f"{a}.bias", f"{b}/bias")
    return rules


def audio() -> Table:
    rules = unit(("audio.conv1", "audio.bn1"), "audio/stem") + bottlenecks("audio", "audio")
    rules += tuple(Rule(f"audio.fbsp.{name}", f"audio/fbsp/{name}") for name in ("m", "fb", "fc"))
    gate, ours = "audio.att{stage}.", "audio/gate_{stage}/"
    return (
        *rules,
        Rule("audio.window", "audio/fbsp/window"),
        Ignored(EMPTY_BIAS),
        Rule(f"{gate}conv_depth.weight", f"{ours}depthwise_kernel", "conv"),
        Rule(f"{gate}conv_depth.bias", f"{ours}depthwise_bias"),
        *biased(f"{gate}conv_point", f"{ours}point", "conv"),
        *norm(f"{gate}bn", f"{ours}norm"),
        *biased("audio.fc", "audio/head", "dense"),
    )


# openai's own files say these sizes beside the weights.
SIZES = tuple(Ignored(name) for name in ("input_resolution", "context_length", "vocab_size"))
SCALES = tuple(Rule(name, name) for name in ("logit_scale", "logit_scale_ai", "logit_scale_at"))
TABLE = (*image(), *text(), *audio(), *SCALES, *SIZES)


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> AudioCLIPConfig:
    """Sizes are read off the shapes; a hop, which none tells, has its published value.

    Raises UserError for a file of one tower, and for filters with a bias, which nobody has published.
    """
    marks = ("visual.attnpool.positional_embedding", "token_embedding.weight", "audio.fbsp.fc")
    if absent := [name for name in marks if name not in shapes]:
        raise UserError(f"audioclip: no {', '.join(absent)}: wanted AudioCLIP's file with all three towers")
    if shapes.get(EMPTY_BIAS, (0,)) != (0,):
        raise UserError(f"audioclip: {EMPTY_BIAS} is {shapes[EMPTY_BIAS]}, wanted is an empty one: it has no use here")
    return AudioCLIPConfig(image=_image(shapes), text=_text(shapes), audio=_audio(shapes))


def _image(shapes: Mapping[str, Shape]) -> CLIPResNetConfig:
    width = shapes["visual.conv3.weight"][0]
    return CLIPResNetConfig(
        image_size=round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5) * STRIDE,
        depths=tuple(_count(shapes, f"visual.layer{stage}.") for stage in STAGES),
        width=width,
        num_heads=max(1, shapes["visual.attnpool.q_proj.weight"][0] // HEAD_WIDTH),
        embedding_width=shapes["visual.attnpool.c_proj.weight"][0],
    )


def _text(shapes: Mapping[str, Shape]) -> CLIPTextConfig:
    vocab_size, width = shapes["token_embedding.weight"]
    return CLIPTextConfig(
        vocab_size=vocab_size,
        length=shapes["positional_embedding"][0],
        width=width,
        depth=_count(shapes, "transformer.resblocks."),
        num_heads=max(1, width // HEAD_WIDTH),
        hidden=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        embedding_width=shapes["text_projection"][1],
        end_id=LEGACY_END_ID,
        joint_projections=True,
    )


def _audio(shapes: Mapping[str, Shape]) -> ESResNetConfig:
    inner, group_width = shapes["audio.layer1.0.conv2.weight"][:2]
    return ESResNetConfig(
        fft_size=2 * (shapes["audio.fbsp.fc"][0] - 1),
        window=shapes["audio.window"][0],
        depths=tuple(_count(shapes, f"audio.layer{stage}.") for stage in STAGES),
        width=shapes["audio.conv1.weight"][0],
        groups=inner // group_width,
        group_width=group_width,
        embedding_width=shapes["audio.fc.weight"][0],
    )


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """Of the blocks that have numbers behind a prefix."""
    return max(int(name[len(prefix) :].split(".")[0]) for name in shapes if name.startswith(prefix)) + 1


def example(config: AudioCLIPConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """An image of the config's size, three rows of ids with the end at another place in each, some frames of sound."""
    side, text, audio = config.image.image_size, config.text, config.audio
    images = rng.standard_normal((1, side, side, 3)).astype(np.float32)
    ids = rng.integers(3, max(text.vocab_size - 1, 4), (3, text.length)).astype(np.int32)
    for row, place in enumerate((1, text.length // 2, text.length - 1)):
        ids[row, place], ids[row, place + 1 :] = text.vocab_size - 1, 0
    return images, ids, rng.normal(0.0, 3000.0, (1, audio.window + 16 * audio.hop)).astype(np.float32)


ENTRY = Entry(
    kind="audioclip",
    table=lambda config: TABLE,
    read_config=read_config,
    write_config=lambda config: {},  # it is published without one
    build=AudioCLIP,
    example=example,
    tokenizer=tokenizer,
    config_type=AudioCLIPConfig,
    caveat=lambda config: CAVEAT,
)
