"""From whatever a user calls a checkpoint to a configuration, a tokenizer and weights, all verified.

* nothing: the model that ships with the package; "shipped:nano" is another word for it
* a working directory of `ssu train`: the best sealed step, or the newest sound one
* a sealed step of it: WORKDIR/checkpoints/00000500
* an exported folder: model.safetensors, config.json, tokenizer.json, manifest.json

The weights are the averaged ones (EMA), frozen ones as they are. Reading never changes a file.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import flax.traverse_util

from ssu_jax.checkpoint import folder as folders
from ssu_jax.checkpoint import seal, shapes, store
from ssu_jax.checkpoint.folder import CLIP_TOKENIZER, CONFIG, TOKENIZER, Model
from ssu_jax.config import Config
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.types import UserError

_PRETRAINED = pathlib.Path(__file__).parent.parent / "pretrained"
SHIPPED = _PRETRAINED / "nano"
_SHIPPED = "shipped:"


def load_model(
    checkpoint: str | pathlib.Path | None = None,
    *,
    shapes_of: Callable[[Config], Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Model:
    """(config, tokenizer, params) of a checkpoint; None is the shipped model.

    shapes_of: gives the tree of arrays or shapes that a configuration's model has; weights of another size
    are then refused, the first differing shapes named. report: takes a line about a step that was refused.
    Raises UserError: missing, damaged, of another schema or size (exit 2), no usable step (exit 79).
    """
    return read_model(locate(checkpoint, report), shapes_of)


def locate(checkpoint: str | pathlib.Path | None, report: Callable[[str], None] | None = None) -> pathlib.Path:
    """The folder that a checkpoint means: an exported one, or a sealed step whose every byte was verified."""
    place = _place_of(checkpoint)
    if folders.is_folder(place):
        return place
    if (place / store.FOLDER).is_dir():
        return _choose_step(place / store.FOLDER, report or _complain)
    if not (place / seal.SEAL).exists() and not (place.is_dir() and place.name.isdecimal()):
        raise UserError(
            f"checkpoint {place} {'holds no model' if place.is_dir() else 'does not exist'}: name a working "
            "directory of `ssu train`, a sealed step in its checkpoints/, or a folder made by `ssu export`"
        )
    if problem := seal.problem_of(place):
        raise UserError(f"checkpoint {place} {problem}: take another step", store.NO_USABLE_CHECKPOINT)
    return place


def _place_of(checkpoint: str | pathlib.Path | None) -> pathlib.Path:
    if checkpoint is None:
        return SHIPPED
    name = str(checkpoint).removeprefix(_SHIPPED)
    if name == str(checkpoint):
        return pathlib.Path(checkpoint).absolute()
    known = sorted(one.name for one in _PRETRAINED.iterdir())
    if name not in known:
        raise UserError(f"checkpoint {checkpoint}: no model of this name ships, wanted {_SHIPPED}{' or '.join(known)}")
    return _PRETRAINED / name


def read_model(place: pathlib.Path, shapes_of: Callable[[Config], Any] | None = None) -> Model:
    """The model in a folder that `locate` gave. Raises UserError for one that describes nothing (pre-training)."""
    if folders.is_folder(place):
        return _read_folder(place, shapes_of)
    config = read_config(_config_of_step(place))
    if config.family in ("pretraining", "trio"):
        raise UserError(
            f"checkpoint {place} holds encoders that were pre-trained, which draw no mask and write no sentence: train "
            f"a model that begins with them, `ssu train ... --config.train.init_from={place}`"
        )
    params = _averaged(store.read_arrays(place))
    if shapes_of is not None:
        shapes.check(shapes.flat(params), shapes.flat(shapes_of(config)), place)
    return Model(config, _tokenizer(place, config), params)


def read_family(place: pathlib.Path) -> str:
    """Which family of models a folder that `locate` gave holds: Config.family."""
    return read_config(place / CONFIG if folders.is_folder(place) else _config_of_step(place)).family


def read_weights(place: pathlib.Path) -> tuple[Config, dict]:
    """Configuration and averaged weights, of any family, in a folder that `locate` gave."""
    if folders.is_folder(place):
        config, _, params = _read_folder(place, None)
        return config, params
    return read_config(_config_of_step(place)), _averaged(store.read_arrays(place))


def made_by(place: pathlib.Path) -> dict[str, Any]:
    """How the model in a folder that `locate` gave was made: step, seed, digest of the records, versions."""
    if folders.is_folder(place):
        return folders.read_manifest(place)["made_by"]
    return json.loads((place / store.RUN).read_text()) | {"step": int(place.name)}


def read_config(path: pathlib.Path) -> Config:
    """A stored configuration. Raises UserError if it is missing, damaged or of another schema."""
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: restore it from a copy") from error


def _averaged(state: dict[str, Any]) -> dict[str, Any]:
    """The average of what learns; what is frozen has none, and is taken as it is."""
    leaves = [flax.traverse_util.flatten_dict(state[name]) for name in ("params", "ema_params")]
    return flax.traverse_util.unflatten_dict(leaves[0] | leaves[1])


def _read_folder(place: pathlib.Path, shapes_of: Callable | None) -> Model:
    # Schema and sizes before the digests: whoever edits config.json shall hear what is wrong with it.
    config = read_config(place / CONFIG)
    if shapes_of is not None:
        shapes.check(folders.read_shapes(place), shapes.flat(shapes_of(config)), place)
    folders.check_files(place)
    return Model(config, _tokenizer(place, config), folders.read_params(place))


def _tokenizer(place: pathlib.Path, config: Config) -> Tokenizer | CLIPTokenizer:
    """The words of the model: our own, or those of AudioCLIP's text tower, which an exported folder names alike."""
    if config.family == "tvsl" and config.tvsl.trio == "audioclip":
        steps_own = place / CLIP_TOKENIZER
        return CLIPTokenizer.load(steps_own if steps_own.is_file() else place / TOKENIZER)
    return Tokenizer.load(place / TOKENIZER)


def _choose_step(folder: pathlib.Path, report: Callable[[str], None]) -> pathlib.Path:
    steps = store.step_folders(folder)
    if not steps:
        raise UserError(f"checkpoint {folder.parent} holds no saved step yet: let `ssu train` run on")
    best = store.best_step(folder)
    problem = ""
    for step in dict.fromkeys([*([best] if best else []), *reversed(steps)]):
        last_problem, problem = problem, seal.problem_of(step)
        if not problem:
            if last_problem:
                report(f"checkpoint {step.name} is used instead")
            return step
        report(f"checkpoint {step.name} refused: {problem}")
    raise store.no_usable_step(folder, f"{step.name} {problem}")


def _config_of_step(step: pathlib.Path) -> pathlib.Path:
    """The working directory's own copy, where there is one: an edited one is found out, not passed over."""
    own = step.parent.parent / CONFIG
    return own if step.parent.name == store.FOLDER and own.exists() else step / CONFIG


def _complain(line: str) -> None:
    print(line, file=sys.stderr)
