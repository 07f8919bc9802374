"""VGGish: the torch port's state dict (a .pth file), and the variables of Google's checkpoint (as an .npz)."""

import dataclasses

import numpy as np

from ssu_jax.config.encoders.vggish import VARIANTS, VGGishConfig
from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Ignored, Rule, Table
from ssu_jax.encoders.vggish import VGGish

# Ours, the port's (place in its list of layers), Google's. Dense layers: map 6 x 4 x c, flattened channels-last.
CONVOLUTIONS = (
    ("stage_1_conv_1", 0, "conv1"),
    ("stage_2_conv_1", 3, "conv2"),
    ("stage_3_conv_1", 6, "conv3/conv3_1"),
    ("stage_3_conv_2", 8, "conv3/conv3_2"),
    ("stage_4_conv_1", 11, "conv4/conv4_1"),
    ("stage_4_conv_2", 13, "conv4/conv4_2"),
)
DENSES = (("hidden_1", 0, "fc1/fc1_1"), ("hidden_2", 2, "fc1/fc1_2"), ("embedding", 4, "fc2"))
STAGE_ENDS = ("stage_1_conv_1", "stage_2_conv_1", "stage_3_conv_2", "stage_4_conv_2")


def table(config: VGGishConfig) -> Table:
    rules = []
    for layers, torch_list, torch_transform in ((CONVOLUTIONS, "features", "conv"), (DENSES, "embeddings", "dense")):
        for ours, place, google in layers:
            if config.layout == "torch":
                rules.append(Rule(f"{torch_list}.{place}.weight", f"{ours}/kernel", torch_transform))
                rules.append(Rule(f"{torch_list}.{place}.bias", f"{ours}/bias"))
            else:
                rules.append(Rule(f"vggish/{google}/weights", f"{ours}/kernel"))
                rules.append(Rule(f"vggish/{google}/biases", f"{ours}/bias"))
    if config.layout == "torch":
        # The post-processing's constants, published in a file of their own too; `postprocess` takes them.
        rules += [Ignored("pproc.pca_matrix"), Ignored("pproc.pca_means")]
    return tuple(rules)


def read_config(published, shapes) -> VGGishConfig:
    """Widths are read off the shapes where the names are known; what is not there keeps its published value."""
    google = any(name.startswith("vggish/") for name in shapes)
    config = VARIANTS["google" if google else "torch"]
    out_axis = -1 if google else 0
    paths = {rule.path: rule.pattern for rule in table(config) if isinstance(rule, Rule)}

    def width(path: str, default: int) -> int:
        shape = shapes.get(paths[f"{path}/kernel"], ())
        return int(shape[out_axis]) if shape else default

    return dataclasses.replace(
        config,
        widths=tuple(width(name, default) for name, default in zip(STAGE_ENDS, config.widths, strict=True)),
        hidden=width("hidden_1", config.hidden),
        embedding_width=width("embedding", config.embedding_width),
    )


def example(config: VGGishConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return (rng.uniform(-4.6, 3.0, (2, 96, 64)).astype(np.float32),)


ENTRY = Entry(
    kind="vggish",
    table=table,
    read_config=read_config,
    write_config=lambda config: {},  # neither form is published with one
    build=VGGish,
    example=example,
    config_type=VGGishConfig,
)
