"""Trains the model with one part off at a time, equal steps and data, several seeds, and writes the table.

    python benchmarks/ablation.py --data data --workdir runs/ablation --steps 800 --table docs/ablation.md

`--data` holds the splits train, val and test (`ssu prepare synthetic`). Each cell is a training run of its own in
WORKDIR/ROW-SEED, so the same command again goes on where it stopped. A cell of the table holds the score of every
seed and an interval that covers the bootstrap 95 % intervals (over test clips) of all of them.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROWS = {
    "full": [],
    "no focal": ["--config.losses.focal=False"],
    "no MCM": ["--config.model.mcm=False"],
    "no RCC": ["--config.model.rcc=False"],
    "no MoHE": ["--config.model.mohe=False"],
    "no LM expert": ["--config.model.language_model.enabled=False"],
    "masks only": ["--config.model.seg_only=True"],
    "words only": ["--config.model.text_only=True"],
}
SCORES = (
    "miou",
    "f_score",
    "exact_match",
    "bleu_4",
    "rouge_l",
    "meteor",
    "cider",
    "silent_accuracy",
    "offscreen_accuracy",
)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="records with the splits train, val and test")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where the runs go")
    parser.add_argument("--steps", type=int, default=800, help="training steps of every row")
    parser.add_argument("--batch-size", type=int, default=16, help="clips a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of every row")
    parser.add_argument("--num-clips", type=int, default=0, help="test clips to score (0: all)")
    parser.add_argument("--json", type=pathlib.Path, help="write the scores here")
    parser.add_argument("--table", type=pathlib.Path, help="write the table here")
    args = parser.parse_args()
    scores = {row: [_run(row, seed, args) for seed in args.seeds] for row in ROWS}
    table = _table(scores, args)
    print(table)
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1) + "\n")
    if args.table:
        args.table.parent.mkdir(parents=True, exist_ok=True)
        args.table.write_text(table)


def _run(row: str, seed: int, args: argparse.Namespace) -> dict:
    workdir = args.workdir / f"{row.replace(' ', '_')}-{seed}"
    metrics = workdir / "ablation.json"
    if not metrics.exists():
        train(workdir, args.data, args.steps, args.batch_size, seed, ROWS[row])
        score(workdir, args.data, args.num_clips, metrics)
    return json.loads(metrics.read_text())


def train(workdir: pathlib.Path, data: str, steps: int, batch_size: int, seed: int, options: list[str]) -> None:
    """A run of nano, with these options changed."""
    ssu("train", "--config", ROOT / "configs/nano.py", "--workdir", workdir, f"--config.data.dir={data}",
         f"--config.train.num_steps={steps}", f"--config.train.batch_size={batch_size}",
         f"--config.train.seed={seed}", "--config.eval.every_steps=0", "--config.train.picture_every_steps=0",
         *options)  # fmt: skip


def score(workdir: pathlib.Path, data: str, num_clips: int, metrics: pathlib.Path) -> None:
    """Scores of a run on the test split, with intervals, as JSON."""
    ssu("evaluate", "--checkpoint", workdir, "--records", data, "--split", "test", "--out", metrics,
         "--num-clips", num_clips)  # fmt: skip


def ssu(*arguments) -> None:
    """The command line, from the root of the repository."""
    subprocess.run([sys.executable, "-m", "ssu_jax.cli.main", *map(str, arguments)], check=True, cwd=ROOT)


def _table(scores: dict[str, list[dict]], args: argparse.Namespace) -> str:
    clips, seeds = next(iter(scores.values()))[0]["num_clips"], ", ".join(map(str, args.seeds))
    lines = [
        "# Ablation on the built-in world",
        "",
        f"One part off at a time; every row is trained for {args.steps} steps of {args.batch_size} clips and scored on "
        f"{clips} test clips, once for each of the seeds {seeds}. A cell holds the score of each seed and, in "
        "brackets, the span of their bootstrap 95 % intervals over the clips. Made by",
        "",
        f"    python benchmarks/ablation.py --data data --workdir runs/ablation --steps {args.steps} "
        f"--batch-size {args.batch_size} --seeds {' '.join(map(str, args.seeds))} --table docs/ablation.md",
        "",
        *rows_of(scores),
    ]
    return "\n".join(lines) + "\n"


def rows_of(scores: dict[str, list[dict]]) -> list[str]:
    """The lines of the table."""
    lines = ["| row | " + " | ".join(SCORES) + " |", "| --- |" + " --- |" * len(SCORES)]
    for row, runs in scores.items():
        lines.append(f"| {row} | " + " | ".join(_cell(runs, name) for name in SCORES) + " |")
    return lines


def _cell(runs: list[dict], name: str) -> str:
    values = [metrics[name] for metrics in runs if metrics.get(name) is not None]
    if not values:
        return "-"
    lows = [metrics[f"{name}_low"] for metrics in runs if metrics.get(f"{name}_low") is not None]
    highs = [metrics[f"{name}_high"] for metrics in runs if metrics.get(f"{name}_high") is not None]
    shown = " ".join(f"{value:.3f}" for value in values)
    return f"{shown} [{min(lows):.3f}, {max(highs):.3f}]" if lows else shown


if __name__ == "__main__":
    main()
