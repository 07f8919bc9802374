"""What writing the sentences costs: greedy, without its early stop, and beam search. One JSON line.

    python benchmarks/decoding.py --beams 4 --length-penalty 0

Clips of the built-in world, ten frames each, all their sentences one batch. What the sentences are written from is
computed once, and timed apart; the ways of writing run in turns, and the fastest run of each counts, in wall-clock
time. `gain` is how much likelier (natural logarithm, mean over frames) the beams' sentence is than the greedy one.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax import models
from ssu_jax.data import pipeline
from ssu_jax.data.synthetic import make_clip
from ssu_jax.inference import loading
from ssu_jax.models import decoding
from ssu_jax.tokenizer import BOS, EOS, PAD


def measure(args: argparse.Namespace) -> dict:
    """Times the ways of writing and returns the figures."""
    config, tokenizer, params = loading.load(args.checkpoint)
    model = models.build(config)
    examples = [
        pipeline.clip_to_example(make_clip(args.seed, "test", index), config.data, tokenizer)
        for index in range(args.clips)
    ]
    inputs = [np.stack(part) for part in zip(*((e.frames, e.log_mel, e.frame_valid) for e in examples), strict=True)]

    def compiled(method: Callable) -> Callable:
        return jax.jit(lambda *given: model.apply({"params": params}, *given, method=method))

    look = compiled(_context)
    context = look(*inputs)
    length = model.max_text_tokens
    ways = {
        "greedy": compiled(lambda model, context: decoding.greedy(model, context, length)),
        "greedy_without_stop": compiled(lambda model, context: _greedy_to_the_end(model, context, length)),
        "beams": compiled(
            lambda model, context: decoding.beam_search(model, context, length, args.beams, args.length_penalty)
        ),
    }
    runs = {"context": lambda: look(*inputs)} | {name: lambda w=way: w(context) for name, way in ways.items()}
    greedy, unstopped, (beams, log_probs) = (jax.tree.map(np.asarray, runs[name]()) for name in ways)
    if not np.array_equal(greedy, unstopped):
        raise SystemExit("decoding: greedy without its early stop writes other sentences")
    worth = np.asarray(compiled(lambda model, context, ids: _log_prob(model, context, ids))(context, greedy))
    seconds = {name: [] for name in runs}
    for _ in range(args.repeats):  # in turns, so that a busy machine slows all alike
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {
        "benchmark": "decoding",
        **vars(args),
        **{f"seconds_{name}": round(min(times), 4) for name, times in seconds.items()},
        "frames": len(greedy),
        "longest_sentence": int((greedy != PAD).sum(axis=1).max()) - 1,
        "most_words": length - 1,
        "other_sentences": int((greedy != beams).any(axis=1).sum()),
        "gain": round(float((log_probs - worth).mean()), 4),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def _context(model, frames, log_mel, frame_valid):
    fused = model.fuse(frames, log_mel, frame_valid)
    return model.context(fused, model.region(frames, fused, model.masks(fused)), frame_valid)


def _greedy_to_the_end(model, context, length):
    """`decoding.greedy`, every place of every sentence computed."""
    rows = context.tokens.shape[0]
    ids = jnp.full((rows, length), PAD, jnp.int32).at[:, 0].set(BOS)

    def write(position, carry):
        ids, state, ended = carry
        here = jax.lax.dynamic_slice_in_dim(ids, position, 1, axis=1)
        logits, state = model.next_word(here, context, state, position)
        word = jnp.where(ended, PAD, jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32))
        ids = jax.lax.dynamic_update_slice_in_dim(ids, word[:, None], position + 1, axis=1)
        return ids, state, ended | (word == EOS)

    start = ids, model.start_words(context), jnp.zeros(rows, bool)
    return jax.lax.fori_loop(0, length - 1, write, start)[0]


def _log_prob(model, context, ids):
    """Of each sentence, word by word."""

    def read(carry, position):
        total, state = carry
        here, word = (jax.lax.dynamic_slice_in_dim(ids, position + place, 1, axis=1) for place in (0, 1))
        logits, state = model.next_word(here, context, state, position)
        each = jnp.take_along_axis(jax.nn.log_softmax(logits[:, 0]), word, axis=1)[:, 0]
        return (total + jnp.where(word[:, 0] == PAD, 0.0, each), state), None

    start = jnp.zeros(len(ids)), model.start_words(context)
    return jax.lax.scan(read, start, jnp.arange(ids.shape[1] - 1))[0][0]


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="workdir, sealed step or exported folder (default: the shipped model)")
    parser.add_argument("--clips", type=int, default=1, help="clips in the batch")
    parser.add_argument("--beams", type=int, default=4, help="beams of the beam search")
    parser.add_argument("--length-penalty", type=float, default=0.0, help="its length penalty")
    parser.add_argument("--repeats", type=int, default=30, help="timed runs of each")
    parser.add_argument("--seed", type=int, default=27182, help="of the clips")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
