# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of ssu_jax
#
# For every second of a video: a mask of the pixels that sound, and a sentence that describes them. This page shows
# the made world that comes with the package, runs the small model that ships with it, and looks inside. It needs no
# download and a minute on a processor.

# %%
import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import traverse_util
from IPython.display import Audio, display
from PIL import Image

from ssu_jax import models
from ssu_jax.data import pipeline, synthetic
from ssu_jax.inference import loading
from ssu_jax.models import decoding
from ssu_jax.types import Batch, Clip
from ssu_jax.visualization import pictures


def show(picture: np.ndarray, scale: int = 2) -> None:
    """Every pixel of the made world `scale` times as large."""
    display(Image.fromarray(np.repeat(np.repeat(picture, scale, 0), scale, 1)))


# %% [markdown]
# ## The made world
#
# Ten seconds, a picture a second, sound, exact masks and a sentence a second. A clip is made from (seed, split,
# number) alone. Beside a source there often stands something that could sound and does not: eyes are not enough.


# %%
def an_instructive_clip(seed: int) -> Clip:
    """The first test clip in which two or more things sound in turn beside one that is silent for a while."""
    for number in range(100):
        clip = synthetic.make_clip(seed, "test", number)
        seen = [item for item in clip.objects if item.on_screen]
        sounding = sum(item.sounding for item in seen)
        if len(seen) >= 3 and sounding.max() == 2 and sounding.min() == 0 and np.count_nonzero(sounding) >= 7:
            return clip
    raise LookupError("no such clip among the first hundred")


clip = an_instructive_clip(seed=2024)
half = slice(0, 10, 2)
show(
    np.concatenate([pictures.draw_mask(frame, mask) for frame, mask in zip(clip.frames, clip.sounding_masks)][half], 1)
)
for second in range(0, 10, 2):
    print(f"{second} s  {clip.captions[second] or '(nothing in the picture sounds)'}")
Audio(clip.sound, rate=clip.sample_rate)

# %% [markdown]
# ## What the model hears
#
# VGGish's log-mel spectrogram, one patch of 0.96 s a second. The bars show when each thing sounds.

# %%
config, tokenizer, params = loading.load()  # the shipped model
model = models.build(config)


def as_batch(clips: list[Clip]) -> Batch:
    """The arrays that the model sees."""
    examples = [pipeline.clip_to_example(one, config.data, tokenizer) for one in clips]
    return Batch(*map(np.stack, zip(*examples)))


batch = as_batch([clip])
figure, (above, below) = plt.subplots(2, 1, figsize=(10, 4), sharex=True, height_ratios=[3, 1], layout="constrained")
above.imshow(np.concatenate(batch.log_mel[0]).T, origin="lower", aspect="auto", extent=(0, 10, 0, 64))
above.set_ylabel("mel band")
for row, item in enumerate(clip.objects):
    starts = np.flatnonzero(item.sounding)
    below.broken_barh([(start, 1) for start in starts], (row - 0.4, 0.8), color=f"C{row}")
below.set_yticks(range(len(clip.objects)), [item.name + ("" if item.on_screen else " (off)") for item in clip.objects])
below.set(xlabel="seconds", ylim=(-0.6, len(clip.objects) - 0.4))
plt.show()

# %% [markdown]
# ## What it says
#
# Above, green: the truth. Below, amber: the model.

# %%
describe = decoding.make_describe(model)


def answer(clips: list[Clip]) -> tuple[np.ndarray, list[list[str]]]:
    """(masks bool [b, t, y, x], sentences [b][t])."""
    seen = as_batch(clips)
    probabilities, ids = describe(params, seen.frames, seen.log_mel, seen.frame_valid)
    return np.asarray(probabilities) > 0.5, [[tokenizer.decode(row) for row in one] for one in np.asarray(ids)]


masks, sentences = answer([clip])
show(
    pictures.picture(
        clip.frames[half], clip.sounding_masks[half], masks[0, half], clip.captions[half], sentences[0][half]
    ),
    scale=1,
)

# %% [markdown]
# ## It listens
#
# The same pictures three times: with one thing sounding, with another one sounding instead, and in silence. Only the
# sound tells the model where to draw.

# %%
pairs = (synthetic.make_counterfactual(2024, "test", number) for number in range(100))
before, after = next(pair for pair in pairs if pair is not None)
silent = dataclasses.replace(before, sound=np.zeros_like(before.sound))
masks, sentences = answer([before, after, silent])
second = int(np.argmax(before.sounding_masks.any(axis=(1, 2))))
show(np.concatenate([pictures.draw_mask(before.frames[second], mask[second]) for mask in masks], axis=1), scale=4)
for name, truth, said in zip(("one", "other", "none"), (before, after, None), sentences):
    print(f"{name:6}truth: {truth.captions[second] if truth else '':55}  model: {said[second]}")

# %% [markdown]
# ## Where it looks and listens
#
# Left: the learned queries of each second attend to the sound of all ten. Right: what every word of a sentence is
# written from - the fused picture and sound, the region under the predicted mask (mask collaboration, MCM), and the
# prompts of scene, region and second.

# %%
_, ids = describe(params, batch.frames, batch.log_mel, batch.frame_valid)
own_words = batch._replace(text_ids=np.asarray(ids))  # read its own sentences back to it
look = jax.jit(lambda params, batch: model.apply({"params": params}, batch, mutable=["intermediates"])[1])
inside = traverse_util.flatten_dict(look(params, own_words)["intermediates"], sep="/")
hearing = next(np.asarray(value[0]) for name, value in inside.items() if "query_tokens" in name)
reading = [np.asarray(value[0]) for name, value in sorted(inside.items()) if "context_attention" in name][-1]

seconds = config.data.num_frames
by_second = hearing[0].mean(0).reshape(seconds, -1, seconds, hearing.shape[-1] // seconds).mean(1).sum(-1)
talking = [t for t in range(seconds) if tokenizer.decode(np.asarray(ids)[0, t])]
chosen = max(talking, key=lambda t: len(tokenizer.decode(np.asarray(ids)[0, t])), default=0)
words = [tokenizer.decode([word]) or "(end)" for word in np.asarray(ids)[0, chosen, 1:]]
words = words[: words.index("(end)") + 1] if "(end)" in words else words

prompts, queries = config.model.moe.prompt_tokens, config.model.num_queries
picture_tokens = (config.data.image_size // 32) ** 2
parts = {
    "picture": picture_tokens,
    "sound": queries,
    "region": -1,
    "scene": prompts,
    "region prompt": prompts,
    "second": prompts,
}
parts["region"] = reading.shape[-1] - sum(size for size in parts.values() if size > 0)
ends = np.cumsum(list(parts.values()))
shares = np.stack([part.sum(-1) for part in np.split(reading[chosen].mean(0), ends[:-1], axis=-1)])[:, : len(words)]

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4), width_ratios=[1, 2], layout="constrained")
left.imshow(by_second)
left.set(xlabel="sound of second", ylabel="query of second")
bottom = np.zeros(len(words))
for name, share in zip(parts, shares):
    right.bar(range(len(words)), share, bottom=bottom, label=name)
    bottom += share
right.set_xticks(range(len(words)), words, rotation=45, ha="right")
right.set(ylabel="share of attention", ylim=(0, 1), title=f"second {chosen}")
right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Which expert writes which word
#
# The mixture of hierarchical-prompted experts (MoHE) in the last block of the text decoder: the router sees the word's
# state and the summaries of scene, region and second. One row a second, coloured by the expert that was chosen.

# %%
choices = [np.asarray(value[0]) for name, value in sorted(inside.items()) if name.endswith("/experts")][-1]
length = np.asarray(ids).shape[-1] - 1
choices = choices[:, 0].reshape(seconds, length)
written = np.asarray(ids)[0, :, 1:]
shown = np.where((written != 0) & (choices < config.model.moe.num_experts), choices, np.nan)
last = int(np.flatnonzero((written != 0).any(0)).max()) + 1
figure, axis = plt.subplots(figsize=(13, 5), layout="constrained")
axis.imshow(shown[:, :last], cmap="Set2", vmin=-0.5, vmax=7.5, aspect="auto")
for t in range(seconds):
    for position in range(last):
        if written[t, position]:
            axis.text(
                position, t, tokenizer.decode([written[t, position]]) or "(end)", ha="center", va="center", fontsize=7
            )
axis.set(xlabel="word", ylabel="second", xticks=range(last), yticks=range(seconds))
plt.show()
counts = np.bincount(shown[~np.isnan(shown)].astype(int), minlength=config.model.moe.num_experts)
print("words by expert:", {f"expert {number}": int(count) for number, count in enumerate(counts)})
