"""DeepLabV3 on MobileNetV2: the names of its TFLite files (batch norm folded, as an .npz), and transformers'."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.deeplab_v3 import DeepLabV3Config
from ssu_jax.conversion.entry import Arrays, Entry
from ssu_jax.conversion.rules import Rule, Shape, Table
from ssu_jax.conversion.tables import mobilenet_v2
from ssu_jax.encoders.deeplab_v3 import DeepLabV3

PREFIX = "mobilenet_v2."
TFLITE_HEAD = {"image_pooling": "image_pooling", "aspp0": "pixel", "concat_projection": "projection"}
TRANSFORMERS_HEAD = {"conv_pool": "image_pooling", "conv_aspp": "pixel", "conv_projection": "projection"}


def table(config: DeepLabV3Config) -> Table:
    if config.backbone.layout == "tflite":
        rules = mobilenet_v2.tflite_backbone("backbone/")
        for theirs, ours in (TFLITE_HEAD | {"logits/semantic": "classifier"}).items():
            rules += mobilenet_v2.tflite_unit(theirs, ours)
        return rules
    rules = mobilenet_v2.transformers_backbone(PREFIX, "backbone/")
    rules += mobilenet_v2.transformers_unit(f"{PREFIX}conv_1x1", "backbone/last")
    for theirs, ours in TRANSFORMERS_HEAD.items():
        rules += mobilenet_v2.transformers_unit(f"segmentation_head.{theirs}", ours)
    classifier = "segmentation_head.classifier.convolution"
    return (
        *rules,
        Rule(f"{classifier}.weight", "classifier/kernel", "conv"),
        Rule(f"{classifier}.bias", "classifier/bias"),
    )


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> DeepLabV3Config:
    """A TFLite file says nothing of its stride: it is the published one, 16."""
    if published:
        backbone = mobilenet_v2.transformers_config(published, shapes, 0)
        projection = shapes.get("segmentation_head.conv_projection.convolution.weight", (DeepLabV3Config.head_width,))
        head = shapes.get("segmentation_head.classifier.convolution.bias", (DeepLabV3Config.num_classes,))
        return DeepLabV3Config(backbone, int(projection[0]), int(head[0]))
    backbone = mobilenet_v2.tflite_config(shapes, output_stride=16, last_width=0, num_classes=0)
    projection = shapes.get("concat_projection/bias", (DeepLabV3Config.head_width,))
    head = shapes.get("logits/semantic/bias", (DeepLabV3Config.num_classes,))
    return DeepLabV3Config(backbone, int(projection[0]), int(head[0]))


def write_config(config: DeepLabV3Config) -> dict[str, Any]:
    if config.backbone.layout == "tflite":
        return {}
    options = mobilenet_v2.transformers_options(config.backbone)
    return {"architectures": ["MobileNetV2ForSemanticSegmentation"], **options, "num_labels": config.num_classes}


def reference(place: pathlib.Path, arguments: tuple[np.ndarray, ...]) -> Arrays:
    """transformers' model on the same images; it leaves the resize to its users, so that is torch's."""
    mobilenet_v2.require_transformers_folder(place)
    import torch
    import transformers

    model = transformers.MobileNetV2ForSemanticSegmentation.from_pretrained(place).eval()
    modules = mobilenet_v2.stage_modules(model.mobilenet_v2)
    features, result = mobilenet_v2.transformers_features(model, modules, arguments)
    size = arguments[0].shape[1:3]
    logits = torch.nn.functional.interpolate(result.logits, size, mode="bilinear", align_corners=True)
    for name, value in {"coarse_logits": result.logits, "logits": logits}.items():
        features[name] = value.permute(0, 2, 3, 1).numpy()
    return features


ENTRY = Entry(
    kind="deeplab_v3",
    table=table,
    read_config=read_config,
    write_config=write_config,
    build=DeepLabV3,
    example=lambda config, rng: mobilenet_v2.example(config.backbone, rng),
    reference=reference,
    config_type=DeepLabV3Config,
)
