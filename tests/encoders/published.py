"""Published tensors -> the parameters of our module, and back, in memory: what the encoder tests share."""

import json
import pathlib

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from ssu_jax.conversion import rules
from ssu_jax.conversion.entry import Entry


def read(path: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(config.json, tensors) of a folder as save_pretrained writes it, or ({}, tensors) of an .npz file."""
    if path.is_dir():
        config = path / "config.json"
        tensors = safetensors.numpy.load_file(path / "model.safetensors")
        return (json.loads(config.read_text()) if config.exists() else {}), tensors
    with np.load(path, allow_pickle=False) as file:
        return {}, dict(file)


def shapes_of(arrays) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


_TRACED: dict[str, dict[str, tuple[int, ...]]] = {}  # config -> shapes: to trace a deep network takes seconds


def wanted_shapes(entry: Entry, config) -> dict[str, tuple[int, ...]]:
    """Our path -> shape, without computing anything."""
    if repr(config) not in _TRACED:
        arguments = entry.example(config, np.random.default_rng(0))
        tree = jax.eval_shape(entry.build(config).init, jax.random.key(0), *arguments)["params"]
        _TRACED[repr(config)] = shapes_of(flax.traverse_util.flatten_dict(tree, sep="/"))
    return dict(_TRACED[repr(config)])


def load(entry: Entry, published: dict, tensors: dict[str, np.ndarray], where="the test"):
    """(our config, variables for `apply`)."""
    config = entry.read_config(published, shapes_of(tensors))
    matches = rules.plan(entry.table(config), shapes_of(tensors), wanted_shapes(entry, config), where)
    flat = {path: rules.TRANSFORMS[how].forward(tensors[name]) for name, path, how in matches}
    return config, {"params": flax.traverse_util.unflatten_dict(flat, sep="/")}


def features_of(module, variables, *arguments) -> dict[str, np.ndarray]:
    """Compiled, as it is used; takes NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(module.apply)(variables, *arguments))


def write_back(entry: Entry, config, variables) -> dict[str, np.ndarray]:
    """Published name -> tensor."""
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    matches, unknown = rules.match_back(entry.table(config), flat)
    assert not unknown, unknown
    return {name: rules.TRANSFORMS[how].backward(np.asarray(flat[path])) for name, path, how in matches}


def write_folder(folder: pathlib.Path, entry: Entry, config, variables):
    """As a published folder: config.json and model.safetensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(entry.write_config(config)))
    tensors = {name: np.ascontiguousarray(array) for name, array in write_back(entry, config, variables).items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def folded_unit(tensors, theirs: str, name: str, eps: float = 1e-3) -> dict[str, np.ndarray]:
    """A convolution of transformers' MobileNetV2 with its batch norm folded in, as TFLite files have it."""
    names = ("weight", "bias", "running_mean", "running_var")
    scale, bias, mean, variance = (tensors[f"{theirs}.normalization.{name}"] for name in names)
    factor = scale / np.sqrt(variance + eps)
    kernel = tensors[f"{theirs}.convolution.weight"].transpose(2, 3, 1, 0)
    return {f"{name}/kernel": kernel * factor, f"{name}/bias": bias - mean * factor}


def folded_backbone(tensors, prefix: str) -> dict[str, np.ndarray]:
    """Stem and blocks under the TFLite file's names."""
    parts = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    folded = folded_unit(tensors, f"{prefix}conv_stem.first_conv", "MobilenetV2/Conv")
    for block in range(17):
        theirs = f"{prefix}layer.{block - 1}" if block else f"{prefix}conv_stem"
        name = f"expanded_conv_{block}" if block else "expanded_conv"
        for part in ("expand", "depthwise", "project") if block else ("depthwise", "project"):
            folded |= folded_unit(tensors, f"{theirs}.{parts[part]}", f"{name}/{part}")
    return folded


def assert_round_trip(entry: Entry, published: dict, tensors: dict[str, np.ndarray], left_out: tuple[str, ...] = ()):
    """Bit for bit; `left_out` are endings of names that hold no weight. The config's way back is checked too."""
    config, variables = load(entry, published, tensors)
    back = write_back(entry, config, variables)
    assert back.keys() == {name for name in tensors if not name.endswith(left_out or ("\0",))}
    for name, array in back.items():
        assert array.dtype == tensors[name].dtype, name
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)
    assert entry.read_config(entry.write_config(config), shapes_of(back)) == config
