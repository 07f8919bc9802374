"""Our reader and input pipeline beside Grain's TFRecord reader, tf.data and torch's DataLoader, on the same records.

    python benchmarks/input_pipeline.py --json input.json
    python benchmarks/input_pipeline.py --stages read --repeats 9
    python benchmarks/input_pipeline.py --frame-size 256 --image-size 224

Stages: `read` (records of --record-bytes of noise, and clips of the built-in world; sequential, and ours at random),
`decode` (JPEG and masks decoded, sound as numbers), `full` (batches of frames, masks, log-mel patches and validity;
ours make the rest of a Batch too). Before anything is timed the outputs are compared: `equal` forms must agree in every
bit, of `own` forms the largest difference is told (benchmarks/input_peers.py says what each form computes itself).

All run in turns, in an order that changes, in a process pinned to one core and again in one that may use all of them. A
turn goes on from a running iterator, so no one's start counts. Ratios are ours over theirs, medians over the turns: by
CPU time of the process with all its threads (`cpu`; on a busy machine the one to trust) and by wall time. Reader
processes have CPU time of their own, so those rows have wall time alone. The files lie in the page cache: this measures
processors, not disks. Needs the extra [test-full] (tensorflow-cpu, torch) for the peers; --peers leaves some out.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

STAGES, PEERS = ("read", "decode", "full"), ("grain", "tf.data", "torch")
SPLIT, WARM_BATCHES = "train", 2
OURS = {"read noise": "ours, sequential", "read clips": "ours, sequential", "decode": "ours", "full": "ours"}


def make_noise(folder: pathlib.Path, args: argparse.Namespace) -> str:
    """One shard of records of noise."""
    import numpy as np

    from ssu_jax.data import shards

    rng = np.random.default_rng(args.seed)
    made = (rng.bytes(args.record_bytes) for _ in range(args.records))
    shards.write_shards(folder, SPLIT, made, 1, facts={"classes": []})
    return str(next(folder.glob("*.tfrecord")))


def make_clips(folder: pathlib.Path, args: argparse.Namespace) -> str:
    """One shard of clips of the built-in world, the same few over and over, enlarged to --frame-size."""
    import dataclasses

    from ssu_jax.config.labels import SYNTHETIC_CLASSES
    from ssu_jax.data import records, synthetic, transforms

    made = []
    for index in range(args.clips):
        clip, size = synthetic.make_clip(args.seed, SPLIT, index), args.frame_size
        if clip.frames.shape[1] != size:
            objects = tuple(
                dataclasses.replace(item, masks=item.masks if item.masks is None
                                    else transforms.resize_masks(item.masks, size, size))
                for item in clip.objects
            )  # fmt: skip
            clip = dataclasses.replace(clip, frames=transforms.resize_frames(clip.frames, size, size), objects=objects)
        made.append(records.encode_clip(clip))
    endless = itertools.islice(itertools.cycle(made), args.clips * args.copies)
    records.write_split(folder, SPLIT, endless, 1, classes=SYNTHETIC_CLASSES, source={})
    return str(next(folder.glob("*.tfrecord")))


def config_of(args: argparse.Namespace, folder: pathlib.Path):
    """The nano configuration without changes of the clips: what the peers can make too."""
    from ssu_jax.config import sizes

    config = sizes.nano()
    config.data.dir, config.data.image_size, config.data.train_seconds = str(folder), args.image_size, 0
    config.train.batch_size = args.batch_size
    for name in ("flip_probability", "brightness", "contrast", "gain_db", "time_shift_seconds"):
        setattr(config.data.augment, name, 0.0)
    config.data.augment.crop_min_scale = 1.0
    return config


def readers(folder: pathlib.Path, path: str, args: argparse.Namespace) -> dict[str, Callable[[], Iterator]]:
    """Contestants that give the bytes of records."""
    import input_peers as peers
    import numpy as np

    from ssu_jax.data.records import RecordSource

    source = RecordSource(folder, SPLIT)
    order = np.random.default_rng(args.seed).permutation(len(source)).tolist()
    found = {
        "ours, sequential": lambda: (source[number] for number in range(len(source))),
        "ours, random": lambda: (source[number] for number in order),
    }
    if "grain" in args.peers:
        found["grain, no checksum"] = lambda: peers.grain_records(path)
    if "tf.data" in args.peers:
        found["tf.data"] = peers.TensorFlowData(path, None, 1).records
    if "torch" in args.peers:
        found["torch, no checksum"] = peers.TorchData(path, None, 1).records
    return found


def decoders(folder: pathlib.Path, path: str, args: argparse.Namespace) -> dict[str, Callable[[], Iterator]]:
    """Contestants that give decoded clips."""
    import input_peers as peers

    from ssu_jax.data import records

    data, source = config_of(args, folder).data, records.RecordSource(folder, SPLIT)
    found = {"ours": lambda: (records.decode_clip(source[number]) for number in range(len(source)))}
    if "tf.data" in args.peers:
        found["tf.data"] = peers.TensorFlowData(path, data, 1).decoded()
    if "torch" in args.peers:
        found["torch"] = peers.TorchData(path, data, 1).decoded
    return found


def pipelines(folder: pathlib.Path, path: str, args: argparse.Namespace) -> dict[str, Callable[[], Iterator]]:
    """Contestants that give batches, in the order of the records unless their name says `training`."""
    import input_peers as peers

    from ssu_jax.config import sizes
    from ssu_jax.data import pipeline, records
    from ssu_jax.tokenizer import Tokenizer

    config, source = config_of(args, folder), records.RecordSource(folder, SPLIT)
    sentences = [text for number in range(args.clips) for text in records.decode_labels(source[number]).captions]
    tokenizer, cores = Tokenizer.train(sentences, config.model.vocab_size), len(os.sched_getaffinity(0))
    found = {"ours": lambda: pipeline.eval_batches(config, tokenizer, SPLIT, args.batch_size)}
    training = config_of(args, folder)
    training.data.augment, training.data.train_seconds = sizes.nano().data.augment, sizes.nano().data.train_seconds
    found["ours, training as configured"] = lambda: pipeline.train_batches(training, tokenizer)
    if "tf.data" in args.peers:
        tensorflow = peers.TensorFlowData(path, config.data, args.batch_size)
        found |= {f"tf.data, {form}": tensorflow.batches(form == "own") for form in ("equal", "own")}
    if "torch" in args.peers:
        torch = peers.TorchData(path, config.data, args.batch_size)
        found |= {
            f"torch, {form}": (lambda own: lambda: torch.batches(own))(form == "own") for form in ("equal", "own")
        }
    if cores > 1:
        config.data.num_workers = cores
        found[f"ours, training unchanged, {cores} processes"] = lambda: pipeline.train_batches(config, tokenizer)
        if "torch" in args.peers:
            found[f"torch, equal, {cores} processes"] = lambda: torch.batches(False, cores)
    return found


def differences(found: dict[str, Callable[[], Iterator]]) -> dict[str, dict[str, float]]:
    """The largest difference of each field from ours over two batches. Raises SystemExit where `equal` is not equal."""
    import input_peers as peers
    import numpy as np

    wanted = peers.first(found["ours"](), 2)
    told = {}
    for name in found:
        if name.startswith("ours"):
            continue
        theirs = peers.first(found[name](), 2)
        told[name] = {
            field: max(
                float(np.abs(np.asarray(batch[field], float) - np.asarray(getattr(ours, field), float)).max())
                for batch, ours in zip(theirs, wanted, strict=True)
            )
            for field in peers.FIELDS
        }
        if "equal" in name and any(told[name].values()):
            raise SystemExit(f"input_pipeline: {name} does not give what ours gives: {told[name]}")
    return told


def turn(iterator: Iterator, count: int) -> tuple[float, float]:
    """(CPU, wall) seconds of the next `count` items."""
    wall, cpu = time.perf_counter(), time.process_time()
    taken = sum(1 for _ in itertools.islice(iterator, count))
    seconds = time.process_time() - cpu, time.perf_counter() - wall
    if taken != count:
        raise SystemExit(f"input_pipeline: only {taken} of {count} items: raise --copies or --records")
    return seconds


def raced(
    found: dict[str, Callable], stage: str, args: argparse.Namespace, warm: int, count: int, scale: float
) -> dict:
    """Figures of a stage: every contestant takes a turn in every round. scale: samples in an item."""
    seconds = {name: [] for name in found}
    for number in range(args.repeats):
        # In another order each time: who comes after whom finds the caches and the allocator otherwise.
        for name in random.Random(number).sample(sorted(found), len(found)):
            iterator = found[name]()
            turn(iterator, warm)
            seconds[name].append(turn(iterator, count))
            if hasattr(iterator, "close"):
                iterator.close()
            del iterator
    return {name: figures_of(name, turns, seconds[OURS[stage]], count * scale) for name, turns in seconds.items()}


def figures_of(name: str, turns: list[tuple], ours: list[tuple], samples: float) -> dict[str, float | None]:
    """Medians of one contestant's turns, (CPU, wall) seconds each."""
    figures = {}
    for place, kind in enumerate(("cpu", "wall")):
        if kind == "cpu" and "processes" in name:
            continue
        rate = samples / statistics.median(turn[place] for turn in turns)
        ratio = statistics.median(theirs[place] / own[place] for theirs, own in zip(turns, ours, strict=True))
        figures |= {f"samples_per_{kind}_second": round(rate, 2), f"ours_over_this_by_{kind}": round(ratio, 3)}
    return figures


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """All stages in this process."""
    stages, told = {}, {}
    noise, clips = folder / "noise", folder / "clips"
    paths = {place: str(next(place.glob("*.tfrecord"), "")) for place in (noise, clips)}
    if "read" in args.stages:
        count = args.records - 2
        stages["read noise"] = raced(readers(noise, paths[noise], args), "read noise", args, 1, count, 1)
        count = args.clips * args.copies - 2
        stages["read clips"] = raced(readers(clips, paths[clips], args), "read clips", args, 1, count, 1)
    if "decode" in args.stages:
        stages["decode"] = raced(decoders(clips, paths[clips], args), "decode", args, 2, args.timed_clips, 1)
    if "full" in args.stages:
        found = pipelines(clips, paths[clips], args)
        told = differences(found)
        count = max(1, args.timed_clips // args.batch_size)
        stages["full"] = raced(found, "full", args, WARM_BATCHES, count, args.batch_size)
    record_bytes = {
        "read noise": args.record_bytes,
        "read clips": os.path.getsize(paths[clips]) / args.clips / args.copies,
    }
    for stage, size in record_bytes.items():
        for figures in stages.get(stage, {}).values():
            for kind in ("cpu", "wall"):
                figures[f"megabytes_per_{kind}_second"] = round(figures[f"samples_per_{kind}_second"] * size / 1e6, 1)
    return {"cores": len(os.sched_getaffinity(0)), "stages": stages, "largest_differences": told}


def lines_of(result: dict[str, Any]) -> Iterator[str]:
    """A table of each stage, ratios first."""
    for name, found in result["largest_differences"].items():
        parts = ", ".join(f"{field} {value:.3g}" for field, value in found.items() if value)
        yield f"{name}: {'largest differences ' + parts if parts else 'equal to ours in every bit'}"
    columns = ("ours/this cpu", "ours/this wall", "samples/cpu s", "samples/s", "MB/cpu s", "MB/s")
    keys = ("ours_over_this_by_cpu", "ours_over_this_by_wall", "samples_per_cpu_second", "samples_per_wall_second",
            "megabytes_per_cpu_second", "megabytes_per_wall_second")  # fmt: skip
    for stage, figures in result["stages"].items():
        yield f"\n{stage}, {result['cores']} core{'s' * (result['cores'] > 1)}"
        yield f"  {'':44}" + "".join(f"{column:>16}" for column in columns)
        for name, row in figures.items():
            cells = ["-" if row.get(key) is None else f"{row[key]:,}" for key in keys]
            yield f"  {name:44}" + "".join(f"{cell:>16}" for cell in cells)


def machine() -> dict[str, Any]:
    """What it ran on."""
    import importlib.metadata

    versions = {}
    for package in ("numpy", "scipy", "pillow", "grain", "tensorflow-cpu", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "versions": versions}


def main() -> None:
    """Makes the records, runs a process for each number of cores, prints tables; `--json` writes all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="what to measure")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="whom to measure beside us")
    parser.add_argument("--cores", nargs="+", default=("one", "all"), choices=("one", "all"), help="pinned to")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each")
    parser.add_argument("--record-bytes", type=int, default=1 << 20, help="of a record of noise")
    parser.add_argument("--records", type=int, default=256, help="records of noise")
    parser.add_argument("--clips", type=int, default=32, help="different clips")
    parser.add_argument("--copies", type=int, default=8, help="how often the clips follow each other in the file")
    parser.add_argument("--timed-clips", type=int, default=64, help="clips in a turn of decode and full")
    parser.add_argument("--frame-size", type=int, default=96, help="rows and columns of the frames in the records")
    parser.add_argument("--image-size", type=int, default=96, help="rows and columns of a batch")
    parser.add_argument("--batch-size", type=int, default=8, help="clips of a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the clips")
    parser.add_argument("--json", default="", help="file that receives the figures")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)  # folder of records: the measuring process
    args = parser.parse_args()
    if args.inside:
        if args.cores == ["one"]:  # before any library counts the cores
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(measure(args, pathlib.Path(args.inside))))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        make_noise(pathlib.Path(folder) / "noise", args)
        make_clips(pathlib.Path(folder) / "clips", args)
        for cores in args.cores:
            command = [sys.executable, __file__, *sys.argv[1:], "--inside", folder, "--cores", cores]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
            if done.returncode:
                raise SystemExit(done.returncode)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print("\n".join(lines_of(results[-1])), flush=True)
    if args.json:
        options = {name: value for name, value in vars(args).items() if name not in ("json", "inside", "cores")}
        told = {"benchmark": "input_pipeline", "options": options, "machine": machine(), "runs": results}
        pathlib.Path(args.json).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
