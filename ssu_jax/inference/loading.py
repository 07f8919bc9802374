"""A checkpoint as a model that is ready to run, its weights compared with what the configuration asks for."""

import pathlib
from collections.abc import Mapping

import jax

from ssu_jax import checkpoint, models, weights
from ssu_jax.checkpoint import Model, pretrained, shapes
from ssu_jax.config import Config, sizes
from ssu_jax.models.late_fusion.sentences import Sentences
from ssu_jax.types import UserError

# What late fusion is made of: the kinds of weights, which are their names in the table of `ssu weights` too.
PUBLISHED = ("yamnet", "deeplab_v3")


def load(path: str | pathlib.Path | None = None) -> Model:
    """(config, tokenizer, params) of a working directory, a sealed step, an exported folder, or the shipped model.

    Raises UserError as `checkpoint.load_model`; weights of another model size are refused by name.
    """
    return checkpoint.load_model(path, shapes_of=parameter_shapes)


def family_of(path: str | pathlib.Path) -> str:
    """Which family of models a checkpoint holds, before its weights are read. Raises UserError as `load`."""
    return checkpoint.read_family(checkpoint.locate(path))


def remark_on(place: pathlib.Path) -> str:
    """What people should know of the published weights that the model in a place that `checkpoint.locate` gave began
    with; "" where there is nothing.
    """
    return pretrained.unpublished(checkpoint.made_by(place).get("published_weights", {}))


def parameter_shapes(config: Config) -> dict:
    """The tree of shapes that the model of this configuration has; nothing is computed."""
    model = models.build(config)
    return jax.eval_shape(lambda: models.init(model, config, jax.random.key(0)))


def has_published() -> bool:
    """Whether the weights of late fusion are in the cache."""
    return all(weights.folder_of(name) for name in PUBLISHED)


def load_published(folders: Mapping[str, pathlib.Path] | None = None) -> Model:
    """Late fusion: (config, what turns its facts into sentences, published weights, verified).

    folders: of PUBLISHED's names, as `ssu convert` writes them; None is the cache. Raises UserError where weights are
    missing, damaged or of another size.
    """
    config = sizes.late_fusion()
    folders = folders or {name: weights.folder_of(name) for name in PUBLISHED}
    if missing := [name for name in PUBLISHED if folders.get(name) is None]:
        raise UserError(
            f"late fusion needs published weights that {weights.cache_folder()} does not hold: `ssu weights get "
            f"{' '.join(missing)}` fetches them, --weights-dir names a folder that has them"
        )
    wanted, params = parameter_shapes(config), {}
    for name in PUBLISHED:
        _, params[name] = pretrained.read_pretrained(folders[name], name)
        shapes.check(shapes.flat(params[name]), shapes.flat(wanted[name]), folders[name])
    return Model(config, Sentences(config.late_fusion), params)
