"""Published weights in their places: folders made by `ssu convert` -> the modules of a model that begins to learn.

They are read once, when a run begins. Checkpoints hold all weights, so that going on with a run, evaluation and
prediction need no such folder.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssu_jax.checkpoint import pretrained
from ssu_jax.config import Config, stored
from ssu_jax.config.encoders import audioclip, causal_lm, clip, pvt_v2, vggish
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.tokenizer import published as vocabularies
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.training import parts, stacks
from ssu_jax.types import UserError

# Fields of the encoders' sizes that change no number: how a published file is laid out, which towers it holds.
_NAMES_ONLY = {"vggish": {"layout"}, "clip": {"towers"}}
_NUM_NAMED = 5


class Source(NamedTuple):
    """An encoder of the model and the folder with its weights."""

    section: str  # of the configuration: "model.visual"
    folder: str
    kind: str  # of the folder
    variant: str
    variants: Mapping[str, Any]
    modules: dict[str, str]  # part of the folder's tree ("" is all of it) -> module of the model


class Published(NamedTuple):
    """params: tree of what was read, under the model's names.  origins: module -> sha256 of the file it came from."""

    params: dict
    origins: dict[str, str]


NOTHING = Published({}, {})


def sources(config: Config) -> list[Source]:
    """The published encoders that a configuration asks for, with weights or without."""
    model = config.model
    if config.family == "tvsl" and config.tvsl.trio == "audioclip":
        return [Source("tvsl", config.tvsl.weights, "audioclip", "audioclip", audioclip.VARIANTS, {"": "trio"})]
    found = []
    if model.visual.kind == "pvt_v2":
        found.append(Source("model.visual", model.visual.weights, "pvt_v2", model.visual.variant,
                            pvt_v2.VARIANTS, {"": "visual_encoder"}))  # fmt: skip
    if model.audio.kind == "vggish":
        found.append(Source("model.audio", model.audio.weights, "vggish", model.audio.variant,
                            vggish.VARIANTS, {"": "audio_encoder/vggish"}))  # fmt: skip
    if model.region_encoder != "cells":
        found.append(Source("model.clip", model.clip.weights, "clip", model.clip.variant,
                            clip.VARIANTS, {"vision": "clip_vision", "text": "clip_text"}))  # fmt: skip
    lm = model.language_model
    if lm.kind != "own":
        found.append(Source("model.language_model", lm.weights, "causal_lm", lm.variant,
                            causal_lm.VARIANTS, {"": "text_decoder/lm/model"}))  # fmt: skip
    return found


def read(config: Config, shapes: dict) -> Published:
    """All published weights that the configuration names and the model has a place for.

    shapes: tree of the model's parameters or their shapes. Raises UserError that lists everything that does not fit:
    folders that are missing, damaged, not converted, or of another kind or size, tensors missing or of another shape.
    """
    wanted = {name: tuple(leaf.shape) for name, leaf in parts.flat(shapes).items()}
    asked = sources(config)
    problems, params, origins = _useless(config, asked), {}, {}
    for source in asked:
        modules = {part: module for part, module in source.modules.items() if _below(wanted, module)}
        if not source.folder or not modules:
            continue
        try:
            tree = _read_folder(source, modules)
            found = {f"{module}/{name}": leaf for part, module in modules.items()
                     for name, leaf in parts.flat(tree[part] if part else tree).items()}  # fmt: skip
            places = {name: wanted[name] for module in modules.values() for name in _below(wanted, module)}
            found = stacks.stacked(found, places)
            _check_shapes(source, found, places)
        except UserError as error:
            problems.append(f"{source.section}.weights: {error}")
            continue
        params |= {name: leaf for name, leaf in found.items() if name in wanted}
        manifest = pretrained.read_manifest(pathlib.Path(source.folder))
        origins |= dict.fromkeys(modules.values(), manifest["files"][pretrained.WEIGHTS][1])
        if source.kind == "audioclip":
            origins[pretrained.MADE_FROM] = next(digest for name, (_, digest) in manifest["source"]["files"].items()
                                      if not name.endswith((".gz", ".json", ".txt")))  # fmt: skip
    if problems:
        raise UserError("; ".join(problems))
    return Published(parts.nested(params), origins)


def tokenizer_of(config: Config) -> Tokenizer:
    """The vocabulary of the published language model, behind our special ids.

    Raises UserError: the folder holds none, or `model.vocab_size` has no room for it.
    """
    path = pathlib.Path(config.model.language_model.weights) / pretrained.TOKENIZER
    if not path.is_file():
        raise UserError(
            f"model.language_model.weights: {path} is missing: convert the weights with `--tokenizer FILE`, "
            "or leave model.language_model.weights empty"
        )
    tokenizer = vocabularies.shifted(vocabularies.read_file(path), str(path))
    if tokenizer.size > config.model.vocab_size:
        raise UserError(
            f"config: model.vocab_size is {config.model.vocab_size}, the vocabulary of {path} needs {tokenizer.size}: "
            f"set model.vocab_size={tokenizer.size}"
        )
    return tokenizer


def clip_tokenizer_of(config: Config, shapes: dict) -> CLIPTokenizer | None:
    """CLIP's own tokenizer, where the model has its text tower and published weights bring one; else None.

    shapes: tree of the model's parameters or their shapes. Raises UserError: the folder holds none, or one whose ids
    are not those of the text tower; AudioCLIP's weights, which T-VSL cannot do without, are not named.
    """
    if config.family == "tvsl" and config.tvsl.trio == "audioclip":
        option, folder, text = "tvsl.weights", config.tvsl.weights, audioclip.VARIANTS["audioclip"].text
        if not folder:
            raise UserError(
                "config: tvsl.weights is empty, and without tokenizer weights no word can be read: name the folder "
                "that `ssu convert AudioCLIP.pt --kind audioclip --tokenizer FILE` made"
            )
    else:
        option, folder = "model.clip.weights", config.model.clip.weights
        if not folder or "clip_text" not in shapes:
            return None
        text = clip.VARIANTS[config.model.clip.variant].text
    try:
        tokenizer = CLIPTokenizer.load(folder)
    except UserError as error:
        raise UserError(f"{option}: {error}: convert the weights with `--tokenizer FILE`") from error
    text = _with_end_id(text)
    if tokenizer.end_id != text.end_id or tokenizer.size > text.vocab_size:
        raise UserError(
            f"{option}: the tokenizer of {folder} has {tokenizer.size} ids and ends a text with "
            f"{tokenizer.end_id}, the text tower has {text.vocab_size} and looks for {text.end_id}: convert the "
            f"weights with the vocabulary that belongs to them"
        )
    return tokenizer


def remarks(config: Config, shapes: dict, published: Published) -> list[str]:
    """Lines for people: what came from where, and which frozen modules are random."""
    sizes = {name: leaf.size for name, leaf in parts.flat(published.params).items()}
    lines = [
        f"{module}: {sum(map(sizes.get, _below(sizes, module))) / 1e6:.2f} M published weights, sha256 {digest[:12]}"
        for module, digest in published.origins.items()
        if module != pretrained.MADE_FROM
    ]
    lines += [line for line in [pretrained.unpublished(published.origins)] if line]
    random = [pattern for pattern in config.train.freeze
              if any(parts.is_named(name, [pattern]) and name not in sizes for name in parts.flat(shapes))]  # fmt: skip
    if random:
        lines.append(
            f"warning: frozen and random, for no published weights are given: {', '.join(random)}; "
            f"name folders made by `ssu convert` in model.*.weights"
        )
    return lines


def _useless(config: Config, asked: list[Source]) -> list[str]:
    """Folders named for an encoder that the configuration does not choose."""
    sections = {"visual": "visual.kind", "audio": "audio.kind", "clip": "region_encoder",
                "language_model": "language_model.kind"}  # fmt: skip
    chosen = {source.section for source in asked}
    return [
        f"model.{section}.weights is set, but model.{choice} chooses an encoder of our own: change one of them"
        for section, choice in sections.items()
        if getattr(config.model, section).weights and f"model.{section}" not in chosen
    ]


def _read_folder(source: Source, modules: Mapping[str, str]) -> dict:
    folder = pathlib.Path(source.folder)
    if folder.is_dir() and not pretrained.is_converted(folder):
        raise UserError(
            f"{folder} is not converted: run `ssu convert {folder} --kind {source.kind} --out {folder}-converted` and "
            f"name that folder"
        )
    found = _sizes_of(source, folder)
    wanted = source.variants[source.variant]
    differing = _differing(found, wanted, set(modules), _NAMES_ONLY.get(source.kind, set()))
    if differing:
        fitting = [name for name, sizes in source.variants.items()
                   if not _differing(found, sizes, set(modules), _NAMES_ONLY.get(source.kind, set()))]  # fmt: skip
        remedy = f"{source.section}.variant={fitting[0]} fits" if fitting else "no named size fits"
        raise UserError(f"{folder} is of another size than {source.variant!r}: {', '.join(differing)}: {remedy}")
    tree = pretrained.read_pretrained(folder, source.kind)[1]
    if absent := [part for part in modules if part and part not in tree]:
        raise UserError(f"{folder} holds no {absent[0]} part: convert weights that do")
    return tree


def _sizes_of(source: Source, folder: pathlib.Path) -> Any:
    some = next(iter(source.variants.values()))
    return stored.from_dict(type(some), pretrained.read_config(folder, source.kind), folder / "config.json")


def _differing(found: Any, wanted: Any, used: set[str], names_only: set[str]) -> list[str]:
    """'widths is (8,), wanted (16,)' for each field that differs; of parts of a config only those used."""
    first, second = (_flat(dataclasses.asdict(_with_end_id(sizes))) for sizes in (found, wanted))
    return [
        f"{name} is {first[name]}, wanted {second[name]}"
        for name in second
        if first[name] != second[name]
        and name.rpartition(".")[2] not in names_only
        and ("." not in name or name.partition(".")[0] in used)
    ]


def _with_end_id(sizes: Any) -> Any:
    """CLIP's sizes with the id that ends a text said outright: older files say 2 and mean the vocabulary's last."""
    if isinstance(sizes, clip.CLIPConfig):
        return dataclasses.replace(sizes, text=_with_end_id(sizes.text))
    if isinstance(sizes, clip.CLIPTextConfig) and sizes.end_id == clip.LEGACY_END_ID:
        return dataclasses.replace(sizes, end_id=sizes.vocab_size - 1)
    return sizes


def _flat(tree: dict) -> dict[str, Any]:
    return {f"{name}.{below}" if below else name: leaf for name, value in tree.items()
            for below, leaf in (value.items() if isinstance(value, dict) else [("", value)])}  # fmt: skip


def _check_shapes(source: Source, found: dict[str, Any], wanted: dict[str, tuple[int, ...]]) -> None:
    """Every parameter of the model must be there; a tensor that the model has no use for may be."""
    wrong = [
        f"{name} is {tuple(found[name].shape) if name in found else 'missing'}, wanted {shape}"
        for name, shape in wanted.items()
        if name not in found or tuple(found[name].shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - _NUM_NAMED} more" if len(wrong) > _NUM_NAMED else ""
        raise UserError(f"{source.folder}: {', '.join(wrong[:_NUM_NAMED])}{more}: convert the weights again")


def _below(names: Mapping[str, Any], module: str) -> list[str]:
    return [name for name in names if name.startswith(f"{module}/")]
