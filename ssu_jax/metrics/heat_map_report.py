"""The table that `ssu evaluate` prints of T-VSL, made from the flat metrics alone."""

from collections.abc import Mapping

Metrics = Mapping[str, float | int | str | None]

_TITLES = {
    "ciou@0.1": "CIoU@0.1",
    "ciou@0.3": "CIoU@0.3",
    "ciou@0.5": "CIoU@0.5",
    "iou": "mean IoU",
    "auc": "AUC",
    "ap": "AP",
    "cap": "CAP",
    "piap": "PIAP",
}
_FOUND = {"found_ciou@0.3": "CIoU@0.3, words found", "precision": "precision of the words found",
          "recall": "recall of the words found", "quiet": "quiet for a wrong word"}  # fmt: skip
_NOTES = {
    "corrected": "CIoU@t: share of sources whose mask overlaps the region by more than t, words given.",
    "released": "CIoU@t, as T-VSL's release has it: mean overlap of maps cut at 0.3, whatever t, words given.",
}
_MORE_NOTES = (
    "Words found: the model's own; a source that it does not find counts 0. Quiet: share of mixtures in which the",
    "mask of a class neither seen nor heard covers less than 2 % of the frame. AP: of the heat of single pixels.",
)


def table(metrics: Metrics) -> str:
    """Lines of text: the scores, then CIoU@0.3 by place and by class."""
    kind = "records as they are" if metrics["as_it_is"] else f"mixtures of {metrics['sources_each']}"
    lines = [
        f"{metrics['split']}: {metrics['num_mixtures']} {kind}, {metrics['num_sources']} sources with a region, mode "
        f"{metrics['mode']}; records {str(metrics['records_digest'])[:12]}",
        "",
    ]
    lines += [f"{title:30}{_number(metrics[name]):>8}" for name, title in (_TITLES | _FOUND).items()]
    rows = [name for name in metrics if "/" in name]
    if rows:
        width = max(map(len, rows)) + 2
        lines += ["", f"{'':{width}}CIoU@0.3"]
        lines += [f"{row.rpartition('/')[0].replace('/', ' '):{width}}{_number(metrics[row]):>8}" for row in rows]
    remarks = [f"Note: {metrics['remark']}."] if metrics["remark"] else []
    return "\n".join([*lines, "", _NOTES[str(metrics["mode"])], *_MORE_NOTES, *remarks])


def _number(value: float | int | str | None) -> str:
    return "-" if value is None else f"{value:.3f}"
