"""Kills a training again and again, damages its newest checkpoint, and counts what was lost. Nothing may be.

    python benchmarks/soak.py --json soak.json        (about ten minutes on 2 cores)

The same small training runs twice: once undisturbed, once with SIGKILL at random moments (start, steps, saves,
evaluations) and another number of reader processes at each start. Losses, scores and final weights must be equal
bit for bit, and every epoch must hold each record once. Then the newest checkpoint is damaged, one fault at a
time: each must be refused, the step before it used, and the reason said. Exits 1 if any of this fails.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NUM_CLIPS, BATCH_SIZE = 22, 4
MAX_STEPS_A_KILL = 8
MOMENTS = ("steps", "save", "start", "save")
CONFIG = """
from ssu_jax.config import sizes


def get_config():
    return sizes.tiny()
"""
OPTIONS = {"train.batch_size": BATCH_SIZE, "train.warmup_steps": 5, "train.log_every_steps": 1,
           "train.checkpoint_every_steps": 3, "train.picture_every_steps": 0, "eval.every_steps": 20,
           "eval.num_clips": 4, "eval.batch_size": 4}  # fmt: skip
WORKERS = (0, 1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="where the figures go")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, rng = time.monotonic(), random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="ssu-soak-") as folder:
        folder = pathlib.Path(folder)
        num_steps = (MAX_STEPS_A_KILL + 1) * args.kills + 20
        prepare(folder)
        run(folder, folder / "whole", num_steps, workers=0)
        figures = {"seed": args.seed, "num_steps": num_steps, **soak(folder, num_steps, args.kills, rng)}
        figures |= compare(folder / "whole", folder / "killed")
        figures["faults"] = damage(folder / "killed", folder / "copy", args.faults, rng)
    figures["seconds"] = round(time.monotonic() - began)
    figures["passed"] = passed(figures, args)
    print(json.dumps(figures, indent=2))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["passed"] else 1


def prepare(folder: pathlib.Path) -> None:
    """Records of the built-in world, and a configuration file."""
    from ssu_jax.config.labels import SYNTHETIC_CLASSES
    from ssu_jax.data import records, synthetic

    for split, count in {"train": NUM_CLIPS, "val": 4}.items():
        clips = (synthetic.make_clip(0, split, number) for number in range(count))
        records.write_split(folder / "data", split, clips, 2, classes=SYNTHETIC_CLASSES, source={"seed": 0})
    (folder / "config.py").write_text(CONFIG)


def start(folder: pathlib.Path, workdir: pathlib.Path, num_steps: int, workers: int) -> subprocess.Popen:
    """`ssu train` as a process; what it says goes to WORKDIR.log, each start below the one before."""
    options = OPTIONS | {"data.dir": folder / "data", "train.num_steps": num_steps, "data.num_workers": workers}
    command = [sys.executable, "-m", "ssu_jax.cli.main", "train", "--config", str(folder / "config.py"),
               "--workdir", str(workdir), *(f"--config.{name}={value}" for name, value in options.items())]  # fmt: skip
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    with open(log_of(workdir), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def run(folder: pathlib.Path, workdir: pathlib.Path, num_steps: int, workers: int) -> None:
    """To the end."""
    if start(folder, workdir, num_steps, workers).wait():
        raise SystemExit(f"the training failed:\n{log_of(workdir).read_text()[-3000:]}")


def soak(folder: pathlib.Path, num_steps: int, kills: int, rng: random.Random) -> dict:
    """Starts and kills in turn, then runs to the end."""
    workdir = folder / "killed"
    during_save = before_steps = 0
    for number in range(kills):
        workers, moment = WORKERS[number % len(WORKERS)], MOMENTS[number % len(MOMENTS)]
        said_before = len(lines_of(workdir))
        process = start(folder, workdir, num_steps, workers)
        await_moment(moment, process, workdir, said_before, rng)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"the training ended before kill {number + 1}:\n{log_of(workdir).read_text()[-3000:]}")
        during_save += any((workdir / "checkpoints").glob("*.unsealed"))
        said = num_steps_said(lines_of(workdir)[said_before:])
        before_steps += said == 0
        print(f"kill {number + 1} of {kills}: {moment}, {workers} workers, {said} steps done", file=sys.stderr)
    run(folder, workdir, num_steps, workers=1)
    return {
        "kills": kills,
        "kills_during_a_save": during_save,
        "kills_before_a_step": before_steps,
        "steps_run_again": num_steps_said(lines_of(workdir)) - num_steps,
        "leftovers": len(list((workdir / "checkpoints").glob("*.*ed"))),
    }


def await_moment(moment: str, process: subprocess.Popen, workdir: pathlib.Path, said_before: int, rng) -> None:
    """Waits for some steps, for a save under way after that, or for any moment from the start on."""
    wanted = rng.randint(1, MAX_STEPS_A_KILL - 3)
    while process.poll() is None:
        time.sleep(0.002)
        done = num_steps_said(lines_of(workdir)[said_before:])
        if moment == "start" and rng.random() < 0.001:
            return
        if done >= wanted and (moment != "save" or any((workdir / "checkpoints").glob("*.unsealed"))):
            time.sleep(rng.uniform(0.0, 0.05 if moment == "save" else 0.3))
            return
        if done >= MAX_STEPS_A_KILL:
            return


def compare(whole: pathlib.Path, killed: pathlib.Path) -> dict:
    """Rows, weights and records of the two runs."""
    import jax
    import numpy as np

    from ssu_jax.checkpoint import store

    first, second = rows_of(whole), rows_of(killed)
    leaves = [jax.tree.leaves(store.read_arrays(newest(path))) for path in (whole, killed)]
    differing = sum(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True))
    read = [record for row in second if row["kind"] == "train" for record in row["records"]]
    epochs = [collections.Counter(read[at : at + NUM_CLIPS]) for at in range(0, len(read), NUM_CLIPS)]
    return {
        "rows": len(second),
        "rows_differing": sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second)),
        "leaves": len(leaves[0]),
        "leaves_differing": differing,
        "records_read": len(read),
        "records_twice_in_an_epoch": sum(count - 1 for epoch in epochs for count in epoch.values()),
        "records_lost": sum(NUM_CLIPS - len(epoch) for epoch in epochs[:-1]),
    }


def damage(workdir: pathlib.Path, copy: pathlib.Path, number: int, rng: random.Random) -> dict:
    """Faults in the newest step: how many were made, refused, answered with the step before, and said by file."""
    from ssu_jax.checkpoint import CheckpointStore

    last, before = newest(workdir).name, sorted((workdir / "checkpoints").glob("*/seal.json"))[-2].parent.name
    counts = {}
    for kind, change in {"flip": flipped, "cut": cut, "delete": None}.items():
        counts[kind] = collections.Counter(injected=0, refused=0, fell_back=0, said=0)
        for _ in range(number):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(workdir / "checkpoints", copy / "checkpoints")
            victim = rng.choice(sorted(path for path in (copy / "checkpoints" / last).rglob("*") if path.is_file()))
            victim.write_bytes(change(victim.read_bytes(), rng)) if change else victim.unlink()
            said: list[str] = []
            with CheckpointStore(copy, said.append) as saved:
                found = saved.find_newest()
            counts[kind]["injected"] += 1
            counts[kind]["refused"] += found.name != last
            counts[kind]["fell_back"] += found.name == before
            counts[kind]["said"] += f"{last} refused" in said[0] and victim.name in said[0]
    return counts


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed, bit = bytearray(content), rng.randrange(8 * len(content))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def passed(figures: dict, args: argparse.Namespace) -> bool:
    """Whether nothing was lost, doubled, changed or used although damaged."""
    zero = ("rows_differing", "leaves_differing", "records_twice_in_an_epoch", "records_lost", "leftovers")
    complete = all(count == args.faults for kind in figures["faults"].values() for count in kind.values())
    return complete and not any(figures[name] for name in zero)


def rows_of(workdir: pathlib.Path) -> list[dict]:
    from ssu_jax.training.logging import TIMED

    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def newest(workdir: pathlib.Path) -> pathlib.Path:
    return max((workdir / "checkpoints").glob("*/seal.json")).parent


def log_of(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.with_suffix(".log")


def lines_of(workdir: pathlib.Path) -> list[str]:
    log = log_of(workdir)
    return log.read_text().splitlines() if log.exists() else []


def num_steps_said(lines: list[str]) -> int:
    return sum(line.startswith("step ") and "loss" in line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
