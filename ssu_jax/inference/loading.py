"""A checkpoint as a model that is ready to run, its weights compared with what the configuration asks for."""

import pathlib

import jax

from ssu_jax import checkpoint, models
from ssu_jax.checkpoint import Model
from ssu_jax.config import Config


def load(path: str | pathlib.Path | None = None) -> Model:
    """(config, tokenizer, params) of a working directory, a sealed step, an exported folder, or the shipped model.

    Raises UserError as `checkpoint.load_model`; weights of another model size are refused by name.
    """
    return checkpoint.load_model(path, shapes_of=parameter_shapes)


def parameter_shapes(config: Config) -> dict:
    """The tree of shapes that the model of this configuration has; nothing is computed."""
    model = models.build(config)
    return jax.eval_shape(lambda: models.init(model, config, jax.random.key(0)))
