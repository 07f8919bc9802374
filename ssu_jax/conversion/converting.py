"""Published weights -> ours, and back: a tensor at a time, so that memory is bounded by the largest of them."""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

import flax.errors
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import tqdm

import ssu_jax
from ssu_jax import files
from ssu_jax.checkpoint import pretrained
from ssu_jax.checkpoint.folder import CONFIG, MANIFEST, TOKENIZER, WEIGHTS
from ssu_jax.config import stored
from ssu_jax.config.options import problems_of
from ssu_jax.conversion import catalogue, npz, rules, safetensors_files
from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.folders import whole_folder
from ssu_jax.conversion.rules import TRANSFORMS, Match, MisfitError, Shape
from ssu_jax.conversion.tensors import Source, Tensor
from ssu_jax.types import UserError

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
# What a configuration of another kind, or of no kind, makes the tables and the modules raise.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_PUBLISHED_NPZ = "model.npz"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was done: a line of the report each."""

    folder: pathlib.Path
    kind: str
    form: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    sha256: str  # of the weights
    num_ignored: int = 0  # published tensors that are known and without use here
    notes: tuple[str, ...] = ()


def kind_of(source: Source) -> str:
    """The kind that config.json means, without one the names of the tensors. Raises UserError where neither tells."""
    if kind := catalogue.kind_in(source.config) or (not source.config and catalogue.kind_among(source.tensors)):
        return kind
    said = f"its config.json says {source.config.get('model_type')!r}" if source.config else "it has no config.json"
    raise UserError(f"{source.place}: {said}: say --kind, one of {', '.join(catalogue.KINDS)}")


def convert(
    source: Source,
    out: pathlib.Path,
    kind: str,
    *,
    dtype: str = "float32",
    vocabulary: pathlib.Path | None = None,
    origin: str = "",
) -> Converted:
    """Writes the folder `out` (see checkpoint/pretrained.py) from published weights.

    dtype: of the stored floating-point numbers. vocabulary: a file for tokenizer.json that does not lie with the
    weights. origin: where the weights came from, for the manifest. Raises UserError: weights that do not fit the table
    (every tensor is named), numbers too large for `dtype`, an `out` that holds something else.
    """
    entry = catalogue.entry_of(kind)
    config = read_config(entry, source)
    matches = rules.plan(entry.table(config), source.shapes, wanted_shapes(entry, config), source.place)
    tokenizer = _tokenizer(entry, source, vocabulary)
    chosen = {match.path: _forward(source.tensors[match.name], match, DTYPES[dtype]) for match in matches}
    with whole_folder(out, pretrained.is_converted) as folder:
        _write_safetensors(folder / WEIGHTS, chosen, {"format": pretrained.FORMAT, "kind": kind})
        content = {"format": pretrained.FORMAT, "kind": kind, "config": dataclasses.asdict(config)}
        _write_json(folder / CONFIG, content)
        if tokenizer:
            files.atomic_write(folder / TOKENIZER, tokenizer)
        used = (*source.files, *([vocabulary] if vocabulary else []))
        made_from = {"origin": origin or source.place.absolute().name, "form": source.form, "files": _listed(used)}
        _write_manifest(folder, dtype, made_from)
    num_ignored = len(source.tensors) - len(matches)
    report = _report(out, WEIGHTS, kind, source.form, chosen)
    return dataclasses.replace(report, num_ignored=num_ignored, notes=source.notes)


def convert_back(folder: pathlib.Path, out: pathlib.Path, *, dtype: str | None = None) -> Converted:
    """Writes `out` as published: safetensors and config.json; .npz where the weights came from .npz or .tflite.

    dtype: of the floating-point numbers, None for what they are stored as. Raises UserError: no converted folder, a
    damaged file, an `out` that holds anything.
    """
    kind = pretrained.read_kind(folder)
    entry = catalogue.entry_of(kind)
    config = stored.from_dict(entry.config_type, pretrained.read_config(folder, kind), folder / CONFIG)
    pretrained.check_files(folder)
    tensors, _ = safetensors_files.read_header(folder / WEIGHTS)
    matches, unknown = rules.match_back(entry.table(config), tensors)
    if unknown:
        raise MisfitError(folder, [f"{path} {tensors[path].shape}: no rule knows it" for path in unknown])
    chosen = {match.name: _backward(tensors[match.path], match, DTYPES.get(dtype)) for match in matches}
    if len(chosen) < len(tensors):
        raise ValueError(f"the table of {kind} gives one published name to several of our tensors")
    published = entry.write_config(config)
    # A .tflite holds a program beside its weights: what goes back are the weights alone.
    form = "npz" if pretrained.read_manifest(folder)["source"]["form"] in ("npz", "tflite") else "safetensors"
    name = _PUBLISHED_NPZ if form == "npz" else WEIGHTS
    with whole_folder(out, lambda _: False) as place:
        if form == "npz":
            _write_npz(place / name, chosen)
        else:
            # transformers reads no file without this word.
            _write_safetensors(place / name, chosen, {"format": "pt"})
        if published:
            _write_json(place / CONFIG, published)
    caveat = entry.caveat(config)
    return dataclasses.replace(_report(out, name, kind, form, chosen), notes=(caveat,) if caveat else ())


def read_config(entry: Entry, source: Source) -> Any:
    """Our configuration of these weights. Raises UserError where the published one does not say what it takes."""
    try:
        config = entry.read_config(source.config, source.shapes)
    except _UNREADABLE as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{source.place} does not look like {entry.kind}: its configuration lacks what that needs ({said}); "
            f"is it another --kind, or does its config.json lie elsewhere (--published-config)?"
        ) from error
    # Before anything is built: a file that asks for a billion blocks would get them.
    if problems := problems_of(config):
        raise UserError(f"{source.place}: its configuration is out of range: {'; '.join(problems)}")
    return config


def wanted_shapes(entry: Entry, config: Any) -> dict[str, Shape]:
    """Our path -> shape of every parameter that this configuration has. Raises UserError where none can be built."""
    if entry.build is None:
        return dict(entry.shapes(config))
    try:
        example = entry.example(config, np.random.default_rng(0))
        shapes = jax.eval_shape(entry.build(config).init, jax.random.key(0), *example)["params"]
    except (*_UNREADABLE, flax.errors.FlaxError) as error:
        said = str(error).strip().split("\n")[0]
        raise UserError(f"{entry.kind}: no network can be built with this configuration ({said}): {config}") from error
    return {path: tuple(leaf.shape) for path, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()}


def _forward(tensor: Tensor, match: Match, dtype: np.dtype) -> Tensor:
    shape, function = rules.shape_after(tensor.shape, match.transform), TRANSFORMS[match.transform].forward
    return _cast(Tensor(shape, tensor.dtype, lambda: function(tensor.read())), match.name, dtype)


def _backward(tensor: Tensor, match: Match, dtype: np.dtype | None) -> Tensor:
    shape, function = rules.shape_before(tensor.shape, match.transform), TRANSFORMS[match.transform].backward
    return _cast(Tensor(shape, tensor.dtype, lambda: function(tensor.read())), match.path, dtype)


def _cast(tensor: Tensor, name: str, dtype: np.dtype | None) -> Tensor:
    """The tensor in another type of floating-point numbers; whole numbers stay as they are."""
    is_float = tensor.dtype.kind == "f" or tensor.dtype in DTYPES.values()  # bfloat16 is of NumPy's kind V
    if dtype in (None, tensor.dtype) or not is_float:
        return tensor

    def read() -> np.ndarray:
        array = tensor.read()
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if not np.isfinite(cast).all() and np.isfinite(array).all():
            raise UserError(f"{name} holds numbers too large for {dtype}: choose another --dtype")
        return cast

    return Tensor(tensor.shape, dtype, read)


def _write_safetensors(path: pathlib.Path, tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> None:
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    with _counted(tensors) as read:
        safetensors_files.write(path, layout, read, words)


def _write_npz(path: pathlib.Path, tensors: Mapping[str, Tensor]) -> None:
    with _counted(tensors) as read:
        npz.write(path, list(tensors), read)


@contextlib.contextmanager
def _counted(tensors: Mapping[str, Tensor]) -> Iterator[Callable[[str], np.ndarray]]:
    """Gives a function that reads a tensor, with a bar on a terminal."""
    with tqdm.tqdm(total=len(tensors), unit="tensor", file=sys.stderr, dynamic_ncols=True, disable=None) as bar:

        def read(name: str) -> np.ndarray:
            bar.update()
            return tensors[name].read()

        yield read


def _tokenizer(entry: Entry, source: Source, vocabulary: pathlib.Path | None) -> str:
    if vocabulary is None:
        return entry.tokenizer(source.place) if entry.tokenizer and source.place.is_dir() else ""
    if entry.tokenizer is None:
        raise UserError(f"--tokenizer {vocabulary}: weights of {entry.kind} go with no vocabulary: leave it out")
    if not vocabulary.is_file():
        raise UserError(f"--tokenizer {vocabulary} does not exist")
    return entry.tokenizer(vocabulary)


def _write_manifest(folder: pathlib.Path, dtype: str, made_from: Mapping[str, Any]) -> None:
    versions = {"ssu_jax": ssu_jax.__version__}
    versions |= {name: metadata.version(name) for name in ("jax", "numpy", "safetensors")}
    listed = _listed(sorted(folder.iterdir()))
    content = {"format": pretrained.FORMAT, "dtype": dtype, "files": listed, "source": made_from, "versions": versions}
    _write_json(folder / MANIFEST, content)


def _listed(paths) -> dict[str, list]:
    return {path.name: [path.stat().st_size, files.sha256_of(path)] for path in paths}


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    files.atomic_write(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _report(out: pathlib.Path, weights: str, kind: str, form: str, tensors: Mapping[str, Tensor]) -> Converted:
    path = pathlib.Path(out) / weights
    return Converted(
        folder=pathlib.Path(out),
        kind=kind,
        form=form,
        num_tensors=len(tensors),
        num_parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        num_bytes=path.stat().st_size,
        sha256=files.sha256_of(path),
    )
