"""The two programs that are profiled: a prediction and a training step, with inputs of the right shapes.

prediction     frames and sound of one window -> masks and sentences, as evaluation and `ssu predict` run it
training step  forward, backward and update, as `ssu train` runs it, on clips of the length it trains on
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ssu_jax import models
from ssu_jax.config import Config
from ssu_jax.inference.loading import parameter_shapes
from ssu_jax.models import decoding
from ssu_jax.models.tvsl import locating
from ssu_jax.tokenizer import BOS
from ssu_jax.training.optimizer import make_optimizer
from ssu_jax.training.state import create_state
from ssu_jax.training.step import make_train_step
from ssu_jax.types import Batch, Mixtures, UserError

PREDICTION, TRAINING_STEP = "prediction", "training_step"


class Program(NamedTuple):
    """One jitted function and what goes in.

    shapes: the shapes of its arguments.  make_arguments: random weights and inputs; allocates.
    carries_state: its first output is its next first argument, whose memory it takes over.
    frames: frames of one sample.  batch_size: samples of one call.
    """

    name: str
    function: Callable
    shapes: tuple
    make_arguments: Callable[[], tuple]
    carries_state: bool
    frames: int
    batch_size: int

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return self.name.replace("_", " ")


def prediction(config: Config, batch_size: int) -> Program:
    """Masks and sentences of `batch_size` clips of `data.num_frames` frames; T-VSL's heat maps of that many mixtures.

    Raises UserError for pre-training.
    """
    if config.family in ("pretraining", "trio"):
        raise UserError(
            f"config.family is {config.family}, which predicts nothing: `ssu profile --only parameters` counts it, "
            "`ssu compile-check` looks at its training step"
        )
    model = models.build(config)
    shapes = jax.eval_shape(lambda: models.example_batch(config, batch_size))

    def inputs(batch: Batch | Mixtures) -> tuple:
        if isinstance(batch, Mixtures):
            return batch.pictures, batch.sound, batch.sources
        return batch.frames, batch.log_mel, batch.frame_valid

    def make_arguments() -> tuple:
        params = models.init(model, config, jax.random.key(config.train.seed))
        return params, *jax.device_put(inputs(random_batch(config, batch_size)))

    return Program(
        PREDICTION,
        locating.make_locate(model) if config.family == "tvsl" else decoding.make_describe(model),
        (parameter_shapes(config), *inputs(shapes)),
        make_arguments,
        carries_state=False,
        frames=_frames(config),
        batch_size=batch_size,
    )


def training_step(config: Config, batch_size: int) -> Program:
    """One update on `batch_size` clips of `data.train_seconds` frames, in one slice."""
    config = as_trained(config)
    train = config.train
    train.batch_size, train.grad_accumulation = batch_size, 1
    model, optimizer = models.build(config), make_optimizer(train)
    create = functools.partial(create_state, config, optimizer)

    def make_arguments() -> tuple:
        params = models.init(model, config, jax.random.key(train.seed))
        return jax.jit(create)(params), jax.device_put(random_batch(config, batch_size))

    return Program(
        TRAINING_STEP,
        jax.jit(make_train_step(model, config, optimizer), donate_argnums=0),
        (
            jax.eval_shape(create, parameter_shapes(config)),
            jax.eval_shape(lambda: models.example_batch(config, batch_size)),
        ),
        make_arguments,
        carries_state=True,
        frames=_frames(config),
        batch_size=batch_size,
    )


def _frames(config: Config) -> int:
    return config.tvsl.num_sources if config.family == "tvsl" else config.data.num_frames


def as_trained(config: Config) -> Config:
    """A copy whose clips are as long as those it trains on."""
    config = copy.deepcopy(config)
    data = config.data
    data.num_frames = min(data.train_seconds or data.num_frames, data.num_frames)
    return config


def random_batch(config: Config, batch_size: int) -> Batch | Mixtures:
    """Noise of the shapes and types of a real batch, the same every time; labels that cost nothing stay zero."""
    generator = np.random.default_rng(0)
    batch: Any = jax.tree.map(np.asarray, models.example_batch(config, batch_size))
    if isinstance(batch, Mixtures):
        k, u = config.tvsl.num_sources, len(config.data.classes)
        return batch._replace(
            pictures=generator.integers(0, 256, batch.pictures.shape, dtype=np.uint8),
            sound=generator.normal(0.0, 0.1, batch.sound.shape).astype(np.float32),
            sources=np.argsort(generator.random((batch_size, u)), axis=1)[:, :k].astype(np.int32),
        )
    text_ids = generator.integers(BOS + 2, config.model.vocab_size, batch.text_ids.shape, dtype=np.int32)
    text_ids[..., 0] = BOS
    return batch._replace(
        frames=generator.integers(0, 256, batch.frames.shape, dtype=np.uint8),
        log_mel=generator.normal(0.0, 1.0, batch.log_mel.shape).astype(np.float32),
        masks=generator.integers(0, 2, batch.masks.shape, dtype=np.uint8),
        text_ids=text_ids,
    )
