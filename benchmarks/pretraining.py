"""Trains SSUFormer from scratch and from a pre-trained checkpoint, with all labels and with few; writes the table.

    ssu prepare synthetic --out data --split train --num-clips 4000      # likewise val and test, of 200
    ssu prepare synthetic --out few --split train --num-clips 200        # its val and test are not read
    ssu train --config configs/pretrain.py --workdir runs/pretrain --config.data.dir=data
    python benchmarks/pretraining.py --data data --few few --init-from runs/pretrain --workdir runs/pretraining

Each cell is a training run of its own in WORKDIR/ROW-SEED, so the same command again goes on where it stopped. All are
scored on the test split of `--data`. The clips of `--few` are the first ones of `--data`: of the others the labels are
then unknown, while pre-training has seen their pictures and sound.
"""

import argparse
import json
import pathlib

import ablation


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="records with the splits train and test")
    parser.add_argument("--few", help="records with a small split train; without it there are no such rows")
    parser.add_argument("--init-from", required=True, help="working directory of the pre-training")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where the runs go")
    parser.add_argument("--steps", type=int, default=300, help="training steps of every row")
    parser.add_argument("--batch-size", type=int, default=8, help="clips a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of every row")
    parser.add_argument("--num-clips", type=int, default=0, help="test clips to score (0: all)")
    parser.add_argument("--only", nargs="+", help="these rows alone, by name")
    parser.add_argument("--json", type=pathlib.Path, help="write the scores here")
    args = parser.parse_args()
    begun = [f"--config.train.init_from={args.init_from}"]
    rows = {"from scratch": (args.data, []), "pre-trained": (args.data, begun)}
    if args.few:
        rows |= {"few labels, from scratch": (args.few, []), "few labels, pre-trained": (args.few, begun)}
    rows = {row: rows[row] for row in args.only or rows}
    scores = {row: [_run(row, *how, seed, args) for seed in args.seeds] for row, how in rows.items()}
    print("\n".join(ablation.rows_of(scores)))
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1) + "\n")


def _run(row: str, data: str, options: list[str], seed: int, args: argparse.Namespace) -> dict:
    workdir = args.workdir / f"{row.replace(', ', '_').replace(' ', '_')}-{seed}"
    metrics = workdir / "scores.json"
    if not metrics.exists():
        ablation.train(workdir, data, args.steps, args.batch_size, seed, options)
        ablation.score(workdir, args.data, args.num_clips, metrics)
    return json.loads(metrics.read_text())


if __name__ == "__main__":
    main()
