"""Trains the small trio and T-VSL on it, several seeds, one thing changed at a time; prints the table of docs/tvsl.md.

    ssu prepare synthetic --out data --split train --num-clips 10000 --num-shards 16
    ssu prepare synthetic --out data --split val --num-clips 400 --seed 5
    ssu prepare synthetic --out data --split test --num-clips 800 --seed 6
    python benchmarks/localization.py --data data --workdir runs/localization

Each run lies in WORKDIR/ROW-SEED, so the same command again goes on where it stopped. All are scored on the same fixed
mixtures of the test split. "held out" has never heard or seen the classes of HELD_OUT in its training, its trio has.
"""

import argparse
import json
import pathlib

import ablation

HELD_OUT = ("bell", "dog", "horn", "whistle")
# Row -> (what follows configs/tvsl.py, options of the training).
ROWS = {
    "corrected": ("", []),
    "held out": ("", [f"--config.tvsl.held_out={HELD_OUT}"]),
    "no text": ("", ["--config.tvsl.text_guidance=False"]),
    "untrained": ("", ["--config.train.num_steps=1", "--config.train.learning_rate=0.0"]),
    "released": (":released", []),
}
# What is scored -> (options of the evaluation, rows).
SCORED = {
    "duets": ([], tuple(ROWS)),
    "one source": (["--sources", "1"], ("corrected",)),
    "three sources": (["--sources", "3"], ("corrected", "no text", "untrained")),
    "four sources": (["--sources", "4"], ("corrected",)),
    "duets, cut at 0.5": (["--threshold", "0.5"], ("no text",)),
    "duets, cut at 0.6": (["--threshold", "0.6"], ("no text",)),
    "duets, cut at 0.7": (["--threshold", "0.7"], ("no text",)),
    "duets of the classes held out": (["--classes", ",".join(HELD_OUT)], ("corrected", "held out", "untrained")),
}
SCORES = ("ciou@0.3", "ciou@0.5", "iou", "auc", "ap", "cap", "piap", "found_ciou@0.3", "precision", "recall", "quiet")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="records with the splits train, val and test")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of every row")
    parser.add_argument("--num-mixtures", type=int, default=400, help="test mixtures to score")
    parser.add_argument("--json", type=pathlib.Path, help="write the scores here")
    args = parser.parse_args()
    found: dict[str, dict[str, list[dict]]] = {}
    for seed in args.seeds:
        for row in ROWS:
            _train(row, seed, args)
        for what, (options, rows) in SCORED.items():
            for row in rows:
                scores = _score(args.workdir / _name(row, seed), what, options, args)
                found.setdefault(what, {}).setdefault(row, []).append(scores)
    print("\n".join(table(found)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def table(found: dict[str, dict[str, list[dict]]]) -> list[str]:
    """Lines of Markdown: a cell holds the score of each seed."""
    lines = ["| scored on | row | " + " | ".join(SCORES) + " |", "| --- | --- |" + " --- |" * len(SCORES)]
    for what, rows in found.items():
        for row, runs in rows.items():
            cells = (" ".join("-" if run[name] is None else f"{run[name]:.3f}" for run in runs) for name in SCORES)
            lines.append(f"| {what} | {row} | " + " | ".join(cells) + " |")
    return lines


def _train(row: str, seed: int, args: argparse.Namespace) -> None:
    trio, (mode, options) = args.workdir / _name("trio", seed), ROWS[row]
    common = [f"--config.data.dir={args.data}", f"--config.train.seed={seed}"]
    for workdir, config, more in (
        (trio, "trio.py", []),
        (args.workdir / _name(row, seed), f"tvsl.py{mode}", [f"--config.train.init_from={trio}", *options]),
    ):
        if not (workdir / "finished").exists():
            config = f"{ablation.ROOT / 'configs' / config}"
            ablation.ssu("train", "--config", config, "--workdir", workdir, *common, *more)
            (workdir / "finished").touch()


def _score(workdir: pathlib.Path, what: str, options: list[str], args: argparse.Namespace) -> dict:
    out = workdir / f"{what.replace(', ', '-').replace(' ', '-')}-{args.num_mixtures}.json"
    if not out.exists():
        ablation.ssu("evaluate", "--checkpoint", workdir, "--records", args.data, "--split", "test", "--out", out,
                     "--num-clips", args.num_mixtures, *options)  # fmt: skip
    return json.loads(out.read_text())


def _name(row: str, seed: int) -> str:
    return f"{row.replace(' ', '_')}-{seed}"


if __name__ == "__main__":
    main()
