"""The paper's tables with ours beside them, in the same columns: published.json and the metrics of evaluations.

Figures stand in the JSON file as printed, each table with the image it was read from; notes say what is known to be
wrong or unsaid about them. Ours are found by two facts of a metrics file: "dataset", the set that the records belong
to, and "row", the row of the tables that the model's switches make.
"""

import functools
import importlib.resources
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssu_jax.config import labels
from ssu_jax.config.rows import ROWS

TABLES = ("ssuformer", "tvsl")
Metrics = Mapping[str, float | int | str | None]

_SCORES = ("miou", "f_score", "bleu_4", "rouge_l", "meteor")
_SETS = {"fmusic": "f_music", "flifescene": "f_lifescene", "synthetic": "synthetic"}
_CLASSES = {"f_music": labels.F_MUSIC_CLASSES, "f_lifescene": labels.F_LIFESCENE_CLASSES}
_SET_OF_TABLE = {"f_music": "f_music", "f_lifescene": "f_lifescene", "ablation": "f_lifescene"}
_WIDTH = 118


def render(table: str, ours: Sequence[Metrics] = ()) -> str:
    """Lines of text: the tables of a paper, `ssuformer` or `tvsl`. ours: flat metrics of `ssu evaluate`."""
    return _localization(ours) if table == "tvsl" else _ssuformer(ours)


def dataset_name(names: Iterable[str], classes: Sequence[str]) -> str:
    """The set that records belong to, for a metrics file: what they say themselves, else what their classes say.

    names: the data set that each record names. classes: of the manifest. "" where neither tells.
    """
    found = sorted({name for name in names if name})
    if found:
        return "+".join(found)
    own = {name.lower() for name in classes}
    return next((name for name, theirs in _CLASSES.items() if own == set(theirs)), "")


def _ssuformer(ours: Sequence[Metrics]) -> str:
    paper = _published()["ssuformer"]
    by_set: dict[str, list[Metrics]] = {}
    for metrics in sorted((one for one in ours if one.get("family") != "tvsl"), key=_place):
        by_set.setdefault(_set_of(metrics), []).append(metrics)
    blocks = []
    for table in paper["tables"]:
        own = by_set.get(_SET_OF_TABLE.get(table["name"], ""), [])
        lines = _averages(table, by_set) if table["name"] == "average" else _beside(table, own)
        blocks.append((f"{table['title']} ({table['image']})", lines))
    for name, own in by_set.items():
        if name not in _CLASSES:
            blocks.append((_title(name), [_line(metrics) for metrics in own]))
    width = max(len(method) for _, lines in blocks for method, _ in lines) + 2
    head = "".join(f"{column:>9}" for column in paper["columns"])
    text = [f"Published figures: {paper['source']}."]
    for title, lines in blocks:
        text += ["", title, f"{'':{width}}{head}"]
        text += [f"{method:{width}}" + "".join(f"{_number(score):>9}" for score in scores) for method, scores in lines]
    return "\n".join([*text, "", *_notes(paper["notes"])])


def _beside(table: dict, own: Sequence[Metrics]) -> list[tuple[str, list]]:
    """A published row, and under it those of ours with the same switches; the others of ours at the end."""
    lines, left = [], list(own)
    for published in table["rows"]:
        lines.append((published["method"], published["scores"]))
        row = published.get("row")
        lines += [_line(metrics) for metrics in left if row and metrics.get("row") == row]
        left = [metrics for metrics in left if not row or metrics.get("row") != row]
    if table["name"] != "ablation":  # there, what has no row of its own has no place
        lines += [_line(metrics) for metrics in left]
    return lines if own else [*lines, ("  ours: none given", [None] * len(_SCORES))]


def _averages(table: dict, by_set: Mapping[str, list[Metrics]]) -> list[tuple[str, list]]:
    """Ours is the plain mean of the two sets, where both are there for the row."""
    lines = []
    for published in table["rows"]:
        lines.append((published["method"], published["scores"]))
        row = published.get("row")
        pair = [next((m for m in by_set.get(name, []) if row and m.get("row") == row), None) for name in _CLASSES]
        if all(pair):
            values = [[metrics.get(name) for metrics in pair] for name in _SCORES]
            means = [None if None in both else sum(both) / 2 for both in values]
            lines.append((f"  ours: {row}", [None, None, *means[2:]]))
    return lines


def _localization(ours: Sequence[Metrics]) -> str:
    """Ours in percent, in the row of their set and number of sources; of other records in rows of their own."""
    paper, left = _published()["tvsl"], [metrics for metrics in ours if metrics.get("family") == "tvsl"]
    width = max([len(row["set"]) for row in paper["rows"]] + [len(_mixed(metrics)) for metrics in left]) + 2
    lines = [f"Published figures: {paper['source']}.", ""]
    lines.append(f"{'':{width}}{'':10}" + "".join(f"{name:>15}" for name in (*paper["columns"], "ours")))
    for row in paper["rows"]:
        own = [m for m in left if m["dataset"] in row["datasets"] and m["sources_each"] == row["sources"]]
        left = [metrics for metrics in left if metrics not in own]
        measure = f"ciou@{row['measure'].rpartition('@')[2]}"
        for metrics in own or [None]:
            score = metrics and metrics[measure]
            lines.append(
                _localized(f"{row['set']:{width}}{row['measure']:10}", [*row["scores"], score and 100 * score])
            )
            lines[-1] += f"  {_who(metrics)}" if metrics else ""
    for metrics in left:
        score = metrics["ciou@0.3"]
        lines.append(_localized(f"{_mixed(metrics):{width}}{'CIoU@0.3':10}", [None, None, score and 100 * score]))
        lines[-1] += f"  {_who(metrics)}"
    return "\n".join([*lines, "", *_notes(paper["notes"])])


def _localized(head: str, scores: Sequence[float | None]) -> str:
    return head + "".join(f"{'-' if score is None else format(score, '.1f'):>15}" for score in scores)


def _mixed(metrics: Metrics) -> str:
    name = {"synthetic": "built-in world"}.get(str(metrics["dataset"]), metrics["dataset"] or "records")
    return f"{name}, {metrics['sources_each']} source{'s' if metrics['sources_each'] != 1 else ''}"


def _who(metrics: Metrics) -> str:
    only = f", of {metrics['only_classes']}" if metrics.get("only_classes") else ""
    return f"({metrics['model']}, {metrics['mode']}, step {metrics['step']}, {metrics['num_clips']} mixtures{only})"


def _line(metrics: Metrics) -> tuple[str, list]:
    facts = [
        str(metrics.get("model") or "a model"),
        f"step {metrics['step']}" if metrics.get("step") is not None else "",
        f"{metrics['num_clips']} clips of {metrics['split']}",
        "AVSBench protocol" if metrics.get("protocol") == "avsbench" else "",
    ]
    row = metrics.get("row") or "no row of the tables"
    return f"  ours: {row} ({', '.join(fact for fact in facts if fact)})", [metrics.get(name) for name in _SCORES]


def _set_of(metrics: Metrics) -> str:
    """Key of a known set, or what the metrics say, so that no other records pass for one."""
    name = str(metrics.get("dataset") or "")
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return _SETS.get(plain, name or f"records {str(metrics['records_digest'])[:12]}")


def _place(metrics: Metrics) -> tuple:
    """Order of ours: by row, then as given."""
    rows = list(ROWS)
    row = metrics.get("row")
    return (rows.index(row) if row in rows else len(rows),)


def _title(name: str) -> str:
    if name == "synthetic":
        return "the built-in world (made by `ssu prepare synthetic`): not the paper's data, no published figures"
    return f"{name}: not known to be the paper's data, no published figures"


def _notes(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


@functools.cache
def _published() -> dict:
    return json.loads(importlib.resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
