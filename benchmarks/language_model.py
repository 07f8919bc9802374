"""What the language-model expert costs while sentences are written, left out and not: one JSON line.

    python benchmarks/language_model.py --variant gpt2 --frames 10

The text decoder of `base` with random weights writes a sentence for every frame, greedily, in one compiled loop, each
of full length: without the LM, with the LM behind gates that are all below the threshold, and all above it. The three
run in turns; the fastest of each counts, in wall-clock time.
"""

import argparse
import json
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax.config import sizes
from ssu_jax.config.encoders.causal_lm import VARIANTS
from ssu_jax.models import decoding
from ssu_jax.models.ssuformer.prompted_experts import Prompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import BOS, EOS, PAD

GATES = {"without": None, "left_out": -20.0, "always": 20.0}
TOKENS = 150  # about what a frame of `base` gives to attend to


class Writer:
    """A text decoder with its parameters, as `decoding.greedy` calls it."""

    def __init__(self, decoder: TextDecoder, params: dict):
        self.decoder, self.params = decoder, params

    def start_words(self, context):
        return self.decoder.apply({"params": self.params}, context, method="start")

    def next_word(self, ids, context, state, position):
        return self.decoder.apply({"params": self.params}, ids, context, state, position, method="step")


def measure(args: argparse.Namespace) -> dict:
    """Times the three and returns the figures."""
    context = _context(args.frames, sizes.base().model.width)
    params = _parameters(args, context)
    runs = {name: _writing(args, name, params, context) for name in GATES}
    words = {name: int((np.asarray(run()) != PAD).sum(axis=1).min()) - 1 for name, run in runs.items()}
    seconds = {name: [] for name in runs}
    for _ in range(args.repeats):  # in turns, so that a busy machine slows all alike
        for name, run in runs.items():
            begin = time.perf_counter()
            run().block_until_ready()
            seconds[name].append(time.perf_counter() - begin)
    return {
        "benchmark": "language_model",
        **vars(args),
        **{f"seconds_{name}": round(min(times), 4) for name, times in seconds.items()},
        "words_written": words,
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def _decoder(args: argparse.Namespace, with_lm: bool) -> TextDecoder:
    config = sizes.base().model
    lm = config.language_model
    lm.enabled, lm.variant, lm.kind = with_lm, args.variant, VARIANTS[args.variant].layout
    config.vocab_size, config.dtype = VARIANTS[args.variant].vocab_size + 4, args.dtype
    return TextDecoder(config, args.words + 1, jnp.dtype(args.dtype))


def _context(frames: int, width: int) -> Context:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    prompts = Prompts(draw(frames, 6, width), draw(frames, 3, width), draw(1, 3))
    return Context(draw(frames, TOKENS, width), jnp.zeros((frames, TOKENS)), prompts)


def _parameters(args: argparse.Namespace, context: Context) -> dict:
    ids = jnp.full((args.frames, 2), BOS)
    init = jax.jit(lambda key: _decoder(args, True).init(key, ids, context, jnp.ones(ids.shape, bool), False))
    params = init(jax.random.key(args.seed))["params"]
    params["head_bias"] = params["head_bias"].at[jnp.asarray([EOS, PAD])].set(-1e4)  # no sentence ends early
    params["gate"]["kernel"] = jnp.zeros_like(params["gate"]["kernel"])
    return params


def _writing(args: argparse.Namespace, name: str, params: dict, context: Context):
    gate = GATES[name]
    if gate is None:
        params = {part: tree for part, tree in params.items() if part not in ("lm", "gate")}
    else:
        params = {**params, "gate": {**params["gate"], "bias": jnp.full(1, gate)}}
    decoder = _decoder(args, gate is not None)
    write = jax.jit(lambda p: decoding.greedy(Writer(decoder, p), context, args.words + 1))
    return lambda: write(params)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="gpt2", choices=sorted(VARIANTS))
    parser.add_argument("--frames", type=int, default=10, help="sentences, written as one batch")
    parser.add_argument("--words", type=int, default=27, help="of every sentence")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
