"""MobileNetV2: the names of its TFLite file (batch norm folded, as an .npz), and transformers' checkpoints."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.mobilenet_v2 import MobileNetV2Config
from ssu_jax.conversion.entry import Arrays, Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table
from ssu_jax.encoders.mobilenet_v2 import STAGES, STEM_WIDTH, MobileNetV2, scaled_width
from ssu_jax.types import UserError

BLOCKS = sum(blocks for parts in STAGES for _, blocks in parts)
WIDTHS = (STEM_WIDTH, *(width for parts in STAGES for width, blocks in parts for _ in range(blocks)))
PUBLISHED_MULTIPLIERS = (1.0, 1.4, 1.3, 0.75, 0.5, 0.35, 0.25)
# Options of transformers' config.json that must have this value: nobody has published weights with another.
FIXED = {"num_channels": 3, "first_layer_is_expansion": True, "hidden_act": "relu6"}


def table(config: MobileNetV2Config) -> Table:
    if config.layout == "tflite":
        head = tflite_unit("MobilenetV2/Conv_1", "last") if config.last_width else ()
        if config.num_classes:
            head += (Rule("Logits/Conv2d_1c_1x1/kernel", "classifier/kernel", "pointwise"),)
            head += (Rule("Logits/Conv2d_1c_1x1/bias", "classifier/bias"),)
        return tflite_backbone("") + head
    head = transformers_unit(f"{transformers_prefix(config)}conv_1x1", "last")
    if config.num_classes:
        head += (Rule("classifier.weight", "classifier/kernel", "dense"), Rule("classifier.bias", "classifier/bias"))
    return transformers_backbone(transformers_prefix(config), "") + head


def tflite_unit(published: str, ours: str) -> Table:
    """Kernel [y, x, in, out] or depthwise [y, x, 1, c], and the bias that holds the folded norm."""
    return Rule(f"{published}/kernel", f"{ours}/kernel"), Rule(f"{published}/bias", f"{ours}/bias")


def tflite_backbone(ours: str) -> Table:
    """Stem and blocks; `ours` goes before our names."""
    rules = tflite_unit("MobilenetV2/Conv", f"{ours}stem")
    for layer in ("depthwise", "project"):
        rules += tflite_unit(f"expanded_conv/{layer}", f"{ours}block_0/{layer}")
    for layer in ("expand", "depthwise", "project"):
        rules += tflite_unit("expanded_conv_{i}/" + layer, f"{ours}block_{{i}}/{layer}")
    return rules


def transformers_unit(published: str, ours: str) -> Table:
    """A convolution without bias and its batch norm; the norm's batch counter is no weight."""
    norm = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    return (
        Rule(f"{published}.convolution.weight", f"{ours}/kernel", "conv"),
        *(Rule(f"{published}.normalization.{theirs}", f"{ours}/norm/{name}") for theirs, name in norm.items()),
        Ignored(f"{published}.normalization.num_batches_tracked"),
    )


def transformers_backbone(prefix: str, ours: str) -> Table:
    """Stem and blocks; their layer 0 is our block 1, for our block 0 is part of their stem."""
    layers = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    rules = transformers_unit(f"{prefix}conv_stem.first_conv", f"{ours}stem")
    for layer in ("depthwise", "project"):
        rules += transformers_unit(f"{prefix}conv_stem.{layers[layer]}", f"{ours}block_0/{layer}")
    for block in range(1, BLOCKS):
        for layer, theirs in layers.items():
            rules += transformers_unit(f"{prefix}layer.{block - 1}.{theirs}", f"{ours}block_{block}/{layer}")
    return rules


def transformers_prefix(config: MobileNetV2Config) -> str:
    """The bare model's names have none."""
    return "mobilenet_v2." if config.num_classes else ""


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> MobileNetV2Config:
    if published:
        return transformers_config(published, shapes, int(shapes.get("classifier.weight", (0,))[0]))
    last, head = (shapes.get(f"{name}/kernel", (0,)) for name in ("MobilenetV2/Conv_1", "Logits/Conv2d_1c_1x1"))
    return tflite_config(shapes, last_width=int(last[-1]), num_classes=int(head[-1]))


def tflite_config(shapes: Mapping[str, Shape], **head) -> MobileNetV2Config:
    """The multiplier and rounding that give the widths of the file; where none does, those of the full network."""
    names = ("MobilenetV2/Conv", "expanded_conv/project", *(f"expanded_conv_{i}/project" for i in range(1, BLOCKS)))
    widths = [int(shapes.get(f"{name}/bias", (0,))[0]) for name in names]
    # DeepLab's narrow networks do not round their widths.
    choices = [(multiplier, divisor) for divisor in (8, 1) for multiplier in PUBLISHED_MULTIPLIERS]
    if min(widths) > 0:
        choices.append((widths[-1] / WIDTHS[-1], math.gcd(*widths)))
    for multiplier, divisor in choices:
        config = MobileNetV2Config(width_multiplier=multiplier, divisor=divisor, smallest_width=divisor, **head)
        if [scaled_width(width, config) for width in WIDTHS] == widths:
            return config
    return MobileNetV2Config(**head)


def transformers_config(
    published: Mapping[str, Any], shapes: Mapping[str, Shape], num_classes: int
) -> MobileNetV2Config:
    """From config.json. Raises UserError where it asks for a network that nobody has published."""
    for name, value in FIXED.items():
        if published.get(name, value) != value:
            raise UserError(f"config.json: {name} is {published[name]!r}, only {value!r} can be converted")
    last = shapes.get("mobilenet_v2.conv_1x1.convolution.weight") or shapes.get("conv_1x1.convolution.weight", (0,))
    return MobileNetV2Config(
        width_multiplier=float(published.get("depth_multiplier", 1.0)),
        divisor=published.get("depth_divisible_by", 8),
        smallest_width=published.get("min_depth", 8),
        expand_ratio=float(published.get("expand_ratio", 6.0)),
        output_stride=published.get("output_stride", 32),
        last_width=int(last[0]),
        num_classes=num_classes,
        batch_norm=True,
        norm_eps=published.get("layer_norm_eps", 0.001),
        padding="same" if published.get("tf_padding", True) else "symmetric",
        layout="transformers",
    )


def write_config(config: MobileNetV2Config) -> dict[str, Any]:
    if config.layout == "tflite":
        return {}
    labels = {"num_labels": config.num_classes} if config.num_classes else {}
    architecture = "MobileNetV2ForImageClassification" if config.num_classes else "MobileNetV2Model"
    return {"architectures": [architecture], **transformers_options(config), **labels}


def transformers_options(config: MobileNetV2Config) -> dict[str, Any]:
    return FIXED | {
        "model_type": "mobilenet_v2",
        "depth_multiplier": config.width_multiplier,
        "depth_divisible_by": config.divisor,
        "min_depth": config.smallest_width,
        "expand_ratio": config.expand_ratio,
        "output_stride": config.output_stride,
        "finegrained_output": config.last_width == 1280 or config.width_multiplier >= 1.0,
        "layer_norm_eps": config.norm_eps,
        "tf_padding": config.padding == "same",
    }


def example(config: MobileNetV2Config, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """An odd and an even size: SAME pads them differently."""
    return (rng.uniform(-1.0, 1.0, (2, 65, 96, 3)).astype(np.float32),)


def reference(place: pathlib.Path, arguments: tuple[np.ndarray, ...]) -> Arrays:
    """transformers' model on the same images."""
    require_transformers_folder(place)
    import transformers

    config = transformers.AutoConfig.from_pretrained(place)
    classifies = "MobileNetV2ForImageClassification" in (config.architectures or ())
    kind = transformers.MobileNetV2ForImageClassification if classifies else transformers.MobileNetV2Model
    model = kind.from_pretrained(place).eval()
    backbone = getattr(model, "mobilenet_v2", model)
    features, result = transformers_features(model, stage_modules(backbone) | {"last": backbone.conv_1x1}, arguments)
    features["pooled"] = features["last"].mean((1, 2))
    if classifies:
        features |= {"logits": result.logits.numpy(), "probabilities": result.logits.softmax(-1).numpy()}
    return features


def require_transformers_folder(place: pathlib.Path) -> None:
    """Raises UserError for weights in the TFLite file's names: no package runs those."""
    if not (place / "config.json").is_file():
        raise UserError(f"no published implementation to check {place} against: only transformers' folders have one")


def stage_modules(backbone) -> dict[str, Any]:
    """Our stage -> the module of transformers' backbone whose output it is."""
    ends = np.cumsum([sum(blocks for _, blocks in parts) for parts in STAGES]) - 1
    layers = {f"stage_{stage}": backbone.layer[end - 1] for stage, end in enumerate(ends[1:], start=2)}
    return {"stage_1": backbone.conv_stem} | layers


def transformers_features(model, modules: Mapping[str, Any], arguments: tuple[np.ndarray, ...]) -> tuple[Arrays, Any]:
    """(output of each module, channels last; the model's result) for images [b, y, x, 3]."""
    import torch

    kept = {}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: kept.update({name: output}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        result = model(torch.from_numpy(arguments[0]).permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in kept.items()}, result


ENTRY = Entry(
    kind="mobilenet_v2",
    table=table,
    read_config=read_config,
    write_config=write_config,
    build=MobileNetV2,
    example=example,
    reference=reference,
    config_type=MobileNetV2Config,
)
