"""How often do the published eight-bit networks and ours, which compute in float32, say the same?

    python benchmarks/eight_bit.py VIDEO... --weights-dir DIR [--seconds 4] [--json eight_bit.json]

DIR holds the published .tflite files. The originals run in `ai-edge-litert` (pip install ai-edge-litert), ours on the
weights that `ssu convert` makes of the same files. For the first seconds of every video:

yamnet        the loudest of 521 classes is the same one (top_1), or ours is among its best five (top_5)
mobilenet_v2  the same of 1001 classes
deeplab_v3    share of pixels with the same label (pixels), and of those that both or one take for an object (objects)
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
import tqdm

from ssu_jax import files, weights
from ssu_jax.checkpoint import read_pretrained
from ssu_jax.config import stored
from ssu_jax.conversion import catalogue, getting
from ssu_jax.data import audio, survey, video
from ssu_jax.layers import images
from ssu_jax.types import UserError

NAMES = ("yamnet", "mobilenet_v2", "deeplab_v3", "deeplab_v3_dm05")
SIZES = {"mobilenet_v2": 224, "deeplab_v3": 513, "deeplab_v3_dm05": 513}
RATE = 16_000


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--weights-dir", required=True, metavar="DIR", help="where the published .tflite files lie")
    parser.add_argument("--seconds", type=int, default=4, help="of each video (default: 4)")
    parser.add_argument("--json", metavar="FILE", help="write the rates here too")
    args = parser.parse_args(arguments)
    try:
        rates = {name: measure(name, args) for name in NAMES}
        for name, found in rates.items():
            print(name, *(f"{key} {value:.4g}" for key, value in found.items()), sep="  ")
        if args.json:
            files.atomic_write(args.json, json.dumps(rates, indent=1) + "\n")
    except UserError as error:
        print(f"eight_bit: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(name: str, args) -> dict[str, float]:
    """Rate of agreement -> share, and how many inputs it was taken over."""
    original = published_network(pathlib.Path(args.weights_dir) / weights.published(name).weights.name)
    ours = converted_network(name, args.weights_dir)
    counts = {}
    for given in tqdm.tqdm(inputs(name, args.videos, args.seconds), desc=name, disable=None):
        theirs, found = original(given), ours(given)
        for key, (same, of) in compare(name, theirs, found).items():
            before = counts.get(key, (0, 0))
            counts[key] = (before[0] + same, before[1] + of)
        counts["inputs"] = (counts.get("inputs", (0, 0))[0] + 1, 1)
    return {key: float(same / max(of, 1)) for key, (same, of) in counts.items()}


def compare(name: str, theirs: np.ndarray, ours: np.ndarray) -> dict[str, tuple[int, int]]:
    """Rate -> (how many agree, of how many)."""
    if not name.startswith("deeplab"):
        best = int(ours.argmax())
        return {"top_1": (int(best == theirs.argmax()), 1), "top_5": (int(best in np.argsort(theirs)[-5:]), 1)}
    same, objects = theirs == ours, (theirs > 0) | (ours > 0)
    return {"pixels": (int(same.sum()), same.size), "objects": (int((same & objects).sum()), int(objects.sum()))}


def inputs(name: str, videos: list[str], seconds: int) -> Iterator[np.ndarray]:
    """What one network takes of every second: log-mel patches, or pictures of its size."""
    for path in videos:
        info = survey.survey(path)
        count = min(seconds, info.num_seconds)
        if name == "yamnet":
            sounds = [sound / 32768 for _, sound in zip(range(count), video.second_sounds(info, RATE), strict=False)]
            yield from audio.second_patches(np.concatenate(sounds), RATE, count, 0.001)
        else:
            pictures = video.second_pictures(info, SIZES[name])
            yield from (picture for _, picture in zip(range(count), pictures, strict=False))


def published_network(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The original, one input at a time."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"the originals need a package ({error}): pip install ai-edge-litert") from error
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(array: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, array[None])
        interpreter.invoke()
        return interpreter.get_tensor(result)[0]

    return run


def converted_network(name: str, weights_dir: str) -> Callable[[np.ndarray], np.ndarray]:
    """Ours on the converted weights: scores, or labels of pixels."""
    kind = weights.published(name).kind
    folder, entry = getting.ready([name], weights_dir)[name], catalogue.entry_of(kind)
    tree, params = read_pretrained(folder, kind)
    module = entry.build(stored.from_dict(entry.config_type, tree, folder))
    feature = {"yamnet": "scores", "mobilenet_v2": "probabilities", "deeplab_v3": "classes"}[kind]
    apply = jax.jit(lambda params, given: module.apply({"params": params}, given)[feature])
    prepared = (lambda x: x) if kind == "yamnet" else (lambda x: images.standardized(x, images.BYTES))
    return lambda array: np.asarray(apply(params, prepared(jax.numpy.asarray(array[None]))))[0]


if __name__ == "__main__":
    sys.exit(main())
