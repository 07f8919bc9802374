"""A checkpoint as a folder to hand on: weights, words, configuration, licence, and a card that says what it is."""

import copy
import dataclasses
import json
import pathlib
from importlib import metadata
from typing import Any

import jax

from ssu_jax import checkpoint, files
from ssu_jax.checkpoint import Model
from ssu_jax.config import Config, sizes
from ssu_jax.inference import loading
from ssu_jax.types import UserError

CARD, LICENSE = "README.md", "LICENSE"
FIGURES = {
    "ssuformer": ("miou", "f_score", "exact_match", "bleu_1", "bleu_4", "rouge_l", "meteor", "cider", "silent_accuracy",
                  "offscreen_accuracy", "num_clips"),
    "tvsl": ("ciou@0.3", "ciou@0.5", "iou", "auc", "ap", "cap", "piap", "found_ciou@0.3", "precision", "recall",
             "quiet", "sources_each", "num_mixtures"),
}  # fmt: skip
_WHAT = {
    "ssuformer": ("sound sources in video, masked and described",
                  "For every second of a video: a mask of the pixels that sound, and a sentence that describes them."),
    "tvsl": ("which region makes which sound, guided by words",
             "For every second of a video and every word, given or found: a heat map of what makes its sound."),
}  # fmt: skip
_CARD = """# {name}: {title}

{what}
{num_parameters:,} parameters, stored as {dtype}; these are the averaged weights (EMA) of step {step}.

    ssu predict my.mp4 --checkpoint {folder} --out out

## How it was made

    {command}

| | |
| --- | --- |
| seed | {seed} |
| training records (digest) | `{data_digest}` |
| training records (made by) | `{data_source}` |
| versions | {versions} |

## Figures

{figures}

## Limits

The model knows only the {num_classes} classes of its training records ({classes}) and the words of its
`tokenizer.json`. On other videos its {answers} are guesses.

## Licence

Apache-2.0, see `LICENSE`.
"""


def export(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    dtype: str = "bfloat16",
    metrics: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes model.safetensors, config.json, tokenizer.json, manifest.json, LICENSE and README.md to `out`.

    path: a working directory, a sealed step, or an exported folder. metrics: metrics.json of an evaluation, for
    the card. Raises UserError for an unusable checkpoint or place, and for an `out` that holds something else.
    """
    place, out = checkpoint.locate(path), pathlib.Path(out)
    foreign = out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").exists()
    if out.is_file() or foreign:
        raise UserError(f"--out {out} holds something else than an exported model: name a new or an empty folder")
    model = checkpoint.read_model(place, loading.parameter_shapes)
    figures = _read_figures(metrics, FIGURES[model.config.family])
    made_by = checkpoint.made_by(place)
    config = _without_places(model.config)
    made_by |= {"command": made_by.get("command") or training_command(config)}
    origins = made_by.get("published_weights", {})
    made_by |= {"published_weights": {name: _last(one) for name, one in origins.items()}}
    made_by |= {"figures": figures or made_by.get("figures", {})}
    files.make_folder(out)
    checkpoint.write_folder(out, Model(config, model.tokenizer, model.params), dtype, made_by)
    files.atomic_write(out / LICENSE, licence())
    files.atomic_write(out / CARD, _card(model, dtype, made_by, out.name))
    return out


def training_command(config: Config) -> str:
    """The `ssu train` command line of a configuration: the named size, and every option that differs from it."""
    named = getattr(sizes, config.name, sizes.nano)()
    changed = []
    _collect_changes(config, named, "", changed)
    changes = "".join(f" --config.{name}={value}" for name, value in changed)
    return f"ssu train --config configs/{config.name}.py --workdir WORKDIR --config.data.dir=DATA{changes}"


def licence() -> str:
    """The text of the licence that was installed with the package, or that lies in the checkout."""
    checkout = pathlib.Path(__file__).parents[2] / "LICENSE"
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    for entry in metadata.files("ssu_jax") or ():
        if entry.name == "LICENSE":
            return entry.read_text(encoding="utf-8")
    raise FileNotFoundError("the LICENSE file of ssu_jax")


def _collect_changes(now: Any, before: Any, prefix: str, changed: list[tuple[str, Any]]) -> None:
    for field in dataclasses.fields(now):
        value, default, name = getattr(now, field.name), getattr(before, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            _collect_changes(value, default, name + ".", changed)
        elif value != default and name != "data.dir":
            changed.append((name, value))


def _without_places(config: Config) -> Config:
    """A copy without the folder of the records, and of an earlier run with its last name alone."""
    config = copy.deepcopy(config)
    config.data.dir, config.train.init_from = "", _last(config.train.init_from)
    return config


def _last(place: str) -> str:
    """Of a path its last name, of a sealed step that of its run; other words are left as they are."""
    parts = pathlib.PurePath(place).parts
    return "/".join(parts[-3:] if "checkpoints" in parts else parts[-1:])


def _read_figures(path: str | pathlib.Path | None, names: tuple[str, ...]) -> dict[str, float]:
    if path is None:
        return {}
    try:
        metrics = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return {name: metrics[name] for name in names if metrics[name] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--metrics {path} is no metrics.json of `ssu evaluate` ({type(error).__name__})") from error


def _card(model: Model, dtype: str, made_by: dict[str, Any], folder: str) -> str:
    figures = made_by["figures"]
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    table = "\n".join(["| measure | value |", "| --- | --- |", *rows]) if rows else "Not measured."
    return _CARD.format(
        name=f"ssu_jax {model.config.name}",
        title=_WHAT[model.config.family][0],
        what=_WHAT[model.config.family][1],
        answers="maps" if model.config.family == "tvsl" else "masks and sentences",
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        dtype=dtype,
        step=made_by["step"],
        folder=folder,
        command=made_by["command"],
        seed=made_by["seed"],
        data_digest=made_by["data_digest"],
        data_source=json.dumps(made_by["data_source"], sort_keys=True),
        versions=", ".join(f"{name} {version}" for name, version in made_by["versions"].items() if version),
        figures=table,
        num_classes=len(model.config.data.classes),
        classes=", ".join(model.config.data.classes),
    )
