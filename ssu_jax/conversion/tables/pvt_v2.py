"""PVT-v2: transformers' layout (PvtV2Model, PvtV2Backbone, PvtV2ForImageClassification), the authors' and timm's.

The authors' files (pvt_v2_b5.pth of whai362/PVT) and timm's hold keys and values in one matrix, and so do we then
(`joint_key_value`). The norms behind patch embeddings and reductions have torch's epsilon of 1e-5 there; transformers
has the config's everywhere. Classifiers are known and left out.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.pvt_v2 import VARIANTS, PVTv2Config
from ssu_jax.conversion import rules, sources
from ssu_jax.conversion.entry import Arrays, Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table
from ssu_jax.encoders.pvt_v2 import EMBEDDINGS, PVTv2
from ssu_jax.types import UserError

STAGES = range(1, len(EMBEDDINGS) + 1)
# Options of transformers' config.json that must have this value: nobody has published weights with another.
FIXED = {
    "num_channels": 3,
    "num_encoder_blocks": len(EMBEDDINGS),
    "patch_sizes": [side for side, _ in EMBEDDINGS],
    "strides": [stride for _, stride in EMBEDDINGS],
    "hidden_act": "gelu",
    "qkv_bias": True,
}
# Parts of a block: ours, its kind, transformers' name, the authors'. timm has theirs, less one "dwconv".
BLOCK = (
    ("norm_1", "norm", "layer_norm_1", "norm1"),
    ("attention/query", "dense", "attention.query", "attn.q"),
    ("attention/reduction", "conv", "attention.spatial_reduction", "attn.sr"),
    ("attention/reduction_norm", "norm", "attention.layer_norm", "attn.norm"),
    ("attention/out", "dense", "attention.proj", "attn.proj"),
    ("norm_2", "norm", "layer_norm_2", "norm2"),
    ("mlp/fc1", "dense", "mlp.dense1", "mlp.fc1"),
    ("mlp/depthwise", "conv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
    ("mlp/fc2", "dense", "mlp.dense2", "mlp.fc2"),
)
SEPARATE = (("attention/key", "dense", "attention.key"), ("attention/value", "dense", "attention.value"))
JOINT = ("attention/key_value", "dense", "attn.kv")


def table(config: PVTv2Config) -> Table:
    """All names that these weights go by; those written back come first."""
    if config.joint_key_value:
        layouts, heads = [rule for stage in STAGES for rule in _authors(stage)], ("head",)
        layouts += [rule for stage in STAGES for rule in _timm(stage)]
    else:
        prefixes, heads = ("", "pvt_v2."), ("classifier",)
        layouts = [rule for prefix in prefixes for stage in STAGES for rule in _transformers(prefix, stage)]
    return (*layouts, *(Ignored(f"{head}.{name}") for head in heads for name in ("weight", "bias")))


def _transformers(prefix: str, stage: int) -> list[Rule]:
    layer, ours = f"{prefix}encoder.layers.{stage - 1}", f"stage_{stage}"
    parts = [
        (f"{ours}/embedding/projection", "conv", f"{layer}.patch_embedding.proj"),
        (f"{ours}/embedding/norm", "norm", f"{layer}.patch_embedding.layer_norm"),
        (f"{ours}/norm", "norm", f"{layer}.layer_norm"),
    ]
    blocks = [(name, kind, theirs) for name, kind, theirs, _ in BLOCK] + list(SEPARATE)
    parts += [(f"{ours}/block_{{i}}/{name}", kind, f"{layer}.blocks.{{i}}.{theirs}") for name, kind, theirs in blocks]
    return _rules(parts)


def _authors(stage: int) -> list[Rule]:
    ours = f"stage_{stage}"
    parts = [
        (f"{ours}/embedding/projection", "conv", f"patch_embed{stage}.proj"),
        (f"{ours}/embedding/norm", "norm", f"patch_embed{stage}.norm"),
        (f"{ours}/norm", "norm", f"norm{stage}"),
    ]
    blocks = [(name, kind, theirs) for name, kind, _, theirs in BLOCK] + [JOINT]
    parts += [(f"{ours}/block_{{i}}/{name}", kind, f"block{stage}.{{i}}.{theirs}") for name, kind, theirs in blocks]
    return _rules(parts)


def _timm(stage: int) -> list[Rule]:
    """The authors' parts at timm's places."""
    moved = (
        (f"block{stage}.{{i}}.mlp.dwconv.dwconv", f"stages.{stage - 1}.blocks.{{i}}.mlp.dwconv"),
        (f"block{stage}.", f"stages.{stage - 1}.blocks."),
        (f"patch_embed{stage}.", "patch_embed." if stage == 1 else f"stages.{stage - 1}.downsample."),
        (f"norm{stage}.", f"stages.{stage - 1}.norm."),
    )

    def place(name: str) -> str:
        old, new = next(pair for pair in moved if name.startswith(pair[0]))
        return new + name[len(old) :]

    return [rule._replace(pattern=place(rule.pattern)) for rule in _authors(stage)]


def _rules(parts: list[tuple[str, str, str]]) -> list[Rule]:
    found = []
    for ours, kind, theirs in parts:
        weight = ("scale", "same") if kind == "norm" else ("kernel", kind)
        found += [Rule(f"{theirs}.weight", f"{ours}/{weight[0]}", weight[1]), Rule(f"{theirs}.bias", f"{ours}/bias")]
    return found


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> PVTv2Config:
    """What transformers' config.json says; of the other layouts, which have none that counts, what the shapes say.

    Raises UserError for names of no known layout, and for a config.json of a network that nobody has published.
    """
    joint = any(name.endswith(".attn.kv.weight") for name in shapes)
    stated = {} if joint or published.get("model_type") != "pvt_v2" else published
    for name, value in FIXED.items():
        if stated.get(name, value) not in (value, tuple(value) if isinstance(value, list) else value):
            raise UserError(f"config.json: {name} is {stated[name]!r}, only {value!r} can be converted")
    matches, _ = rules.match(table(PVTv2Config(joint_key_value=joint)), shapes)
    ours = {path: rules.shape_after(shapes[name], how) for name, path, how in matches}
    if not ours:
        raise UserError("pvt_v2: no tensor has a name of transformers' PvtV2Model, of the authors' files or of timm's")
    sizes = _sizes(ours) if "hidden_sizes" not in stated else {}
    for name, theirs in (
        ("widths", "hidden_sizes"),
        ("depths", "depths"),
        ("num_heads", "num_attention_heads"),
        ("mlp_ratios", "mlp_ratios"),
        ("reductions", "sr_ratios"),
    ):
        if theirs in stated:
            sizes[name] = tuple(int(value) for value in stated[theirs])
    if "linear_attention" in stated:
        sizes["linear_attention"] = bool(stated["linear_attention"])
    epsilon = float(stated.get("layer_norm_eps", 1e-6))
    return PVTv2Config(
        **_DEFAULTS | sizes,
        norm_epsilon=epsilon,
        convolution_norm_epsilon=1e-5 if joint else epsilon,
        joint_key_value=joint,
    )


# What transformers' config means where it says nothing: b0.
_DEFAULTS = {name: getattr(VARIANTS["b0"], name) for name in ("depths", "num_heads", "mlp_ratios", "reductions")}


def _sizes(ours: Mapping[str, Shape]) -> dict[str, Any]:
    """Sizes read off the shapes of our parameters; the number of heads, which no shape tells, is that of all sizes."""
    widths = tuple(int(ours[f"stage_{stage}/embedding/norm/scale"][0]) for stage in STAGES)
    hidden = [int(ours[f"stage_{stage}/block_0/mlp/fc1/bias"][0]) for stage in STAGES]
    kernels = [ours.get(f"stage_{stage}/block_0/attention/reduction/kernel", ()) for stage in STAGES]
    linear = all(kernel[:1] == (1,) for kernel in kernels)
    sizes = {
        "widths": widths,
        "depths": tuple(sum(_is_block(path, stage) for path in ours) for stage in STAGES),
        "mlp_ratios": tuple(size // width for size, width in zip(hidden, widths, strict=True)),
        "linear_attention": linear,
    }
    return sizes if linear else sizes | {"reductions": tuple(int((*kernel, 1)[0]) for kernel in kernels)}


def _is_block(path: str, stage: int) -> bool:
    return path.startswith(f"stage_{stage}/block_") and path.endswith("/norm_1/scale")


def write_config(config: PVTv2Config) -> dict[str, Any]:
    """Of transformers' PvtV2Model; the authors' layout has none."""
    if config.joint_key_value:
        return {}
    return FIXED | {
        "architectures": ["PvtV2Model"],
        "model_type": "pvt_v2",
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "num_attention_heads": list(config.num_heads),
        "mlp_ratios": list(config.mlp_ratios),
        "sr_ratios": list(config.reductions),
        "linear_attention": config.linear_attention,
        "layer_norm_eps": config.norm_epsilon,
    }


def example(config: PVTv2Config, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A size that no stride divides, so that squares are left out and edges padded."""
    return (rng.standard_normal((2, 100, 68, 3)).astype(np.float32),)


def reference(place: pathlib.Path, arguments: tuple[np.ndarray, ...]) -> Arrays:
    """transformers' model on the same images. Weights without its config.json are put under its names first."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        source = sources.open_source(place, pathlib.Path(scratch))
        if source.config.get("model_type") == "pvt_v2":
            model = transformers.PvtV2Model.from_pretrained(source.place, dtype=torch.float32)
        else:
            config = read_config(source.config, source.shapes)
            tensors = {name: np.array(tensor.read()) for name, tensor in source.tensors.items()}
            model = _renamed(config, tensors)
    images = torch.from_numpy(arguments[0]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        maps = model.eval()(images, output_hidden_states=True).hidden_states
    return {f"stage_{stage}": maps[stage - 1].permute(0, 2, 3, 1).numpy() for stage in STAGES}


def _renamed(config: PVTv2Config, tensors: Arrays) -> Any:
    """transformers' model with the weights, and the epsilons, of another layout."""
    import torch
    import transformers

    separate = dataclasses.replace(config, joint_key_value=False)
    by_path = {path: tensors[name] for name, path, _ in rules.match(table(config), tensors)[0]}
    for path in [path for path in by_path if "/key_value/" in path]:
        halves = np.split(by_path.pop(path), 2)
        by_path |= {path.replace("key_value", part): half for part, half in zip(("key", "value"), halves, strict=True)}
    matches, _ = rules.match_back(table(separate), by_path)
    model = transformers.PvtV2Model(transformers.PvtV2Config(**write_config(separate)))
    state = {name: torch.from_numpy(np.ascontiguousarray(by_path[path], np.float32)) for name, path, _ in matches}
    model.load_state_dict(state)
    for name, module in model.named_modules():
        if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
            module.eps = config.convolution_norm_epsilon
    return model


ENTRY = Entry(
    kind="pvt_v2",
    table=table,
    read_config=read_config,
    write_config=write_config,
    build=PVTv2,
    example=example,
    reference=reference,
    config_type=PVTv2Config,
)
