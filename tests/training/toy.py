"""A model that compiles in a second, in the place of SSUFormer: the loop is tested here, not the network."""

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax import losses, models
from ssu_jax.config import Config, sizes
from ssu_jax.data import records
from ssu_jax.models import decoding
from ssu_jax.types import Clip, SoundObject

SIZE, WIDTH = 32, 8


class ToyModel:
    """Pixels of three colours -> mask logits; a random key moves them, so that keys matter."""

    def apply(self, variables, batch, mask_mix, rngs, train):
        colours = batch.frames.astype(jnp.float32).mean(axis=(2, 3)) / 255.0
        noise = jax.random.normal(rngs["mask"], colours.shape) * 0.01 * mask_mix
        hidden = jnp.tanh((colours + noise) @ variables["params"]["first"]["kernel"])
        return (hidden @ variables["params"]["second"]["kernel"])[..., 0] + variables["params"]["second"]["bias"]


def toy_init(model, config: Config, key) -> dict:
    first, second = jax.random.split(key)
    return {
        "first": {"kernel": jax.random.normal(first, (3, WIDTH))},
        "second": {"kernel": jax.random.normal(second, (WIDTH, 1)), "bias": jnp.zeros(())},
    }


def toy_loss(outputs, batch, config):
    sounding = batch.masks.astype(jnp.float32).mean(axis=(2, 3))
    error = ((outputs - sounding) ** 2).mean()
    return error, {"mask": error}


def toy_describe(model):
    def describe(params, frames, log_mel, frame_valid):
        b, t, y, x = frames.shape[:4]
        answer = jnp.full((b, t, y, x), 0.25) + 0.0 * params["second"]["bias"]
        return answer, jnp.tile(jnp.array([1, 2]), (b, t, 1))

    return jax.jit(describe)


def install(setattr=setattr) -> None:
    """Puts the toy in place; give `monkeypatch.setattr` to have it taken out again."""
    setattr(models, "build", lambda *_: ToyModel())
    setattr(models, "init", toy_init)
    setattr(decoding, "make_describe", toy_describe)
    setattr(losses, "total_loss", toy_loss)


def config(directory, **changes) -> Config:
    """A small run; changes name options by section and field joined with two underscores: train__num_steps."""
    made = sizes.tiny()
    made.data.dir = str(directory)
    made.train.batch_size, made.train.num_steps, made.train.warmup_steps = 4, 12, 2
    made.train.log_every_steps = 1
    made.train.checkpoint_every_steps, made.eval.every_steps, made.train.picture_every_steps = 3, 0, 0
    made.eval.batch_size = made.eval.num_clips = 2
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(getattr(made, section), field, value)
    return made


def clip(number: int, split: str = "train") -> Clip:
    """Four seconds of a square that sounds in some of them; everything follows from the number."""
    rng = np.random.default_rng((number, len(split)))
    t = 4
    frames = rng.integers(0, 255, (t, SIZE, SIZE, 3)).astype(np.uint8)
    masks, sounding = np.zeros((t, SIZE, SIZE), bool), np.arange(t) % 2 == number % 2
    masks[:, 8:24, 4:12] = True
    captions = tuple("The red bell on the left is ringing." if loud else "" for loud in sounding)
    sound = rng.integers(-1000, 1000, t * 16000).astype(np.int16)
    bell = SoundObject("bell", sounding, True, masks)
    return Clip(f"{split}-{number}", frames, np.arange(t) + 0.5, sound, 16000, np.ones(t, bool), captions,
                (bell,), "toy", "music", "bell")  # fmt: skip


def write_records(directory, num_train: int = 10, num_val: int = 3) -> str:
    for split, count in {"train": num_train, "val": num_val}.items():
        if count:
            clips = (clip(number, split) for number in range(count))
            records.write_split(directory, split, clips, 2, classes=("bell",), source={"made by": "a test"})
    return str(directory)
