"""The table that `ssu evaluate` prints, made from the flat metrics alone."""

from collections.abc import Mapping

from ssu_jax.metrics import accumulate, baselines

_TITLES = {
    "miou": "mIoU",
    "f_score": "F-score",
    "exact_match": "exact match",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "cider": "CIDEr-D",
    "silent_accuracy": "silent accuracy",
    "offscreen_accuracy": "off-screen accuracy",
}
_ROW_SCORES = ("miou", "f_score", "exact_match", "bleu_4", "rouge_l", "meteor", "cider", "offscreen_accuracy")
_ROW_TITLES = ("mIoU", "[95 %]", "F-score", "exact", "BLEU-4", "ROUGE-L", "METEOR", "CIDEr-D", "off-scr.")
_NOTES = (
    "mIoU, F-score: mean over frames in which something in the picture sounds; words: the same frames.",
    "silent, off-screen accuracy: share of frames with no sound, with sound from off screen only, left without a",
    "pixel and a word. [95 %]: bootstrap over clips. sound only: hears every class, sees nothing; picture only:",
    "sees every object, hears nothing; commonest: one sentence for all (counted on other clips of these records).",
)
_AVSBENCH_NOTE = (
    "mIoU, F-score: AVSBench's M_J, M_F. They depend on the batch size and have no intervals and no rows below."
)


def table(metrics: Mapping[str, float | int | str | None]) -> str:
    """Lines of text: the scores with intervals beside the baselines, then a row a class and number of sources."""
    lines = [_head(metrics), "", *_scores(metrics)]
    rows = _rows(metrics)
    if rows:
        lines += ["", *rows]
    notes = (_AVSBENCH_NOTE, *_NOTES[1:]) if metrics["protocol"] == "avsbench" else _NOTES
    return "\n".join([*lines, "", *notes])


def _head(metrics: Mapping) -> str:
    batch = f", AVSBench protocol, {metrics['batch_size']} clips a batch" if metrics["protocol"] == "avsbench" else ""
    return (
        f"{metrics['split']}: {metrics['num_clips']} clips, {metrics['num_frames']} frames "
        f"({metrics['num_sounding_frames']} sounding, {metrics['num_silent_frames']} silent, "
        f"{metrics['num_offscreen_frames']} off screen){batch}; records {metrics['records_digest'][:12]}"
    )


def _scores(metrics: Mapping) -> list[str]:
    titles = [name.replace("_", " ") for name in baselines.NAMES]
    lines = [f"{'':20}{'score':>8}  {'[95 %]':^15}" + "".join(f"{title:>14}" for title in titles)]
    for name in accumulate.SCORES:
        others = "".join(f"{_number(metrics.get(f'baseline/{b}/{name}')):>14}" for b in baselines.NAMES)
        lines.append(f"{_TITLES[name]:20}{_number(metrics[name]):>8}  {_interval(metrics, name):^15}{others}")
    if not any(key.startswith("baseline/") for key in metrics):
        lines = [line[:45].rstrip() for line in lines]
    return [line.rstrip() for line in lines]


def _rows(metrics: Mapping) -> list[str]:
    groups = [key.removesuffix("/num_frames") for key in metrics if key.endswith("/num_frames")]
    if not groups:
        return []
    width = max(20, *(len(group) + 1 for group in groups))
    mean, interval, *others = _ROW_TITLES
    lines = [f"{'':{width}}{'frames':>8}{mean:>9}  {interval:^15}" + "".join(f"{title:>9}" for title in others)]
    for group in groups:
        first, *rest = [metrics[f"{group}/{name}"] for name in _ROW_SCORES]
        lines.append(
            f"{group.replace('/', ' '):{width}}{metrics[f'{group}/num_frames']:>8}{_number(first):>9}"
            f"  {_interval(metrics, f'{group}/miou'):^15}" + "".join(f"{_number(value):>9}" for value in rest)
        )
    return [line.rstrip() for line in lines]


def _interval(metrics: Mapping, name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.3f} - {high:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
