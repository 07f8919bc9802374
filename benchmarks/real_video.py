"""How good are masks and sentences on real clips? Every annotated clip of a folder, described as `ssu predict` does.

    python benchmarks/real_video.py --data DATA --out DIR [--model late_fusion] [--weights-dir D]

DATA holds clips/, annotations/clips.csv and, where there are any, annotations/hand_masks/hand_masks.json (masks of
single seconds) and annotations/vggss_boxes_of_our_clips.json (boxes of the picture at 5 s). What a person wants to
read of a clip stands in benchmarks/real_clips.json. A clip with NAME.gt.wav, .int.wav or .mix.wav beside it is
described with each of them as its sound too: the source alone, another one off screen, both.

DIR gets clips.jsonl (a line a clip), table.md and contact_sheet_1.png, ... (prediction amber, truth green). Of clips
that are not free to show, these are for your own eyes. Exit code 1 when a target is missed.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import tqdm
from PIL import Image
from real_clips import SOUNDS, Case, cases_of, pictures_at

from ssu_jax import files
from ssu_jax.data import survey, video
from ssu_jax.inference.predictor import Predictor
from ssu_jax.metrics import localization, segmentation
from ssu_jax.types import UserError
from ssu_jax.visualization import contact_sheet, pictures

QUIET_DB = -50.0  # of full scale: a second below it holds no sound that a person would name
RATE = 16_000
SHEET_ROWS, SHEET_COLUMNS = 9, 5

# Figure -> the least that passes.
TARGETS = {
    "canary: mean IoU with the hand masks": 0.5,
    "silent clips: seconds without a pixel and a word": 1.0,
    "dog: right noun in sounding seconds": 0.5,
    "train: right noun in sounding seconds": 0.5,
    "sheep: right noun in sounding seconds": 0.5,
    "car engine: named in the notes": 1.0,
}
CANARY, ENGINE = "vggsound_0nib7bMm8BA_15", "vggsound_-1pRmoJIGQc_10"
SILENT = ("sam2_dog_silent_audio", "cockatoo_yuv444_silent", "sam2_juggle_no_audio_stream")
ANIMALS_AND_TRAINS = {
    "dog": ("avsync15_dog",),
    "train": ("vggsound_foleycrafter2_train", "train"),
    "sheep": ("vggsound_foleycrafter1_sheep",),
}


def main(arguments: list[str] | None = None) -> int:
    """Describes, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DATA", help="clips and annotations")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--model", choices=("late_fusion", "ssuformer"), default="late_fusion")
    parser.add_argument("--weights-dir", metavar="D", help="as for ssu predict (default: the cache)")
    parser.add_argument("--checkpoint", metavar="C", help="of SSUFormer, as for ssu predict (default: the shipped one)")
    parser.add_argument("--only", metavar="WORDS", help="only clips whose names hold one of these, with commas between")
    args = parser.parse_args(arguments)
    try:
        rows = measure(args)
        figures = figures_of(rows)
        missed = [name for name, least in TARGETS.items() if name in figures and figures[name] < least]
        text = "\n\n".join([figures_table(figures), clips_table(rows), sounds_table(rows)]) + "\n"
        files.atomic_write(args.out / "clips.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        files.atomic_write(args.out / "table.md", text)
    except UserError as error:
        print(f"real_video: error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 1 if missed else 0


def measure(args) -> list[dict]:
    """A row a case; the contact sheets are written on the way."""
    predictor = _predictor(args)
    files.make_folder(args.out)
    with tempfile.TemporaryDirectory() as folder:
        cases = list(cases_of(args.data, pathlib.Path(folder), (args.only or "").split(",")))
        if not cases:
            raise UserError(f"--data {args.data}: annotations/clips.csv lists no clip whose name holds {args.only!r}")
        rows, strips = [], []
        for case in tqdm.tqdm(cases, unit="clip", disable=None):
            row, strip = describe(case, predictor)
            rows.append(row)
            strips.append(strip)
            if len(strips) == SHEET_ROWS or case is cases[-1]:
                page = (len(rows) + SHEET_ROWS - 1) // SHEET_ROWS
                with files.atomic_path(args.out / f"contact_sheet_{page}.png") as path:
                    Image.fromarray(contact_sheet.stacked(strips)).save(path, format="PNG")
                strips = []
    return rows


def describe(case: Case, predictor: Predictor) -> tuple[dict, np.ndarray]:
    """(figures of a clip, its row of the contact sheet)."""
    info = survey.survey(case.path)
    described = predictor.predict(info)
    seconds = list(described.predictions)
    masks = np.stack([one.mask for one in seconds])
    levels = np.array([pictures.level_of(sound) for sound in video.second_sounds(info, RATE)])
    truth = sounding_truth(case, levels)
    row = {
        "clip": case.name,
        "sound": case.sound,
        "seconds": len(seconds),
        "masked_seconds": int(masks.any((1, 2)).sum()),
        "mean_area": float(masks.mean()),
        "sounding": localization.sounding_accuracy(masks, truth),
        "mask_iou": [_iou(masks[second], true) for second, true in sorted(case.masks.items()) if second < len(masks)],
        **_against_boxes(case, masks),
        **_against_wishes(case.wanted, seconds, described.notes, truth),
        "sentences": [one.caption for one in seconds],
        "notes": described.notes,
    }
    chosen = contact_sheet.evenly(len(seconds), SHEET_COLUMNS)
    if case.boxes is not None and case.box_second not in chosen:
        chosen[np.argmin(np.abs(np.array(chosen) - case.box_second))] = case.box_second
    true_masks = dict(case.masks)
    if case.boxes is not None:
        boxes = localization.boxes_in_pixels(case.boxes, info.height, info.width)
        true_masks[case.box_second] = localization.union_of(boxes, info.height, info.width)
    shown = pictures_at(info, [info.time_of(second) for second in chosen])
    strip = contact_sheet.strip(
        f"{case.name}, sound: {case.sound}",
        list(shown),
        [masks[second] for second in chosen],
        [f"{second} s: {seconds[second].caption}" for second in chosen],
        [true_masks.get(second) for second in chosen],
    )
    return row, strip


def figures_of(rows: list[dict]) -> dict[str, float]:
    """What the targets and the summary speak of; a figure whose clips were not described is left out."""
    own = {row["clip"]: row for row in rows if row["sound"] == "own"}
    figures = {}
    if CANARY in own:
        figures["canary: mean IoU with the hand masks"] = float(np.mean(own[CANARY]["mask_iou"]))
    if silent := [own[name] for name in SILENT if name in own]:
        empty = [row["seconds"] - max(row["masked_seconds"], sum(map(bool, row["sentences"]))) for row in silent]
        figures["silent clips: seconds without a pixel and a word"] = sum(empty) / sum(row["seconds"] for row in silent)
    for noun, names in ANIMALS_AND_TRAINS.items():
        counts = np.array([own[name]["noun"] for name in names if name in own])
        if counts.size and counts[:, 1].sum():
            figures[f"{noun}: right noun in sounding seconds"] = float(counts[:, 0].sum() / counts[:, 1].sum())
    if ENGINE in own:
        figures["car engine: named in the notes"] = float(own[ENGINE]["sound_named"])
    return figures | _figures_of_all(rows, own)


def _figures_of_all(rows: list[dict], own: dict[str, dict]) -> dict[str, float]:
    figures = {}
    right, known = np.array([row["sounding"] for row in own.values()]).reshape(-1, 2).sum(0)
    if known:
        figures[f"sounding or not: right seconds ({known} whose truth is known)"] = float(right / known)
    boxed = np.array([row["box_iou"] for row in rows if row["box_iou"] is not None])
    if boxed.size:
        figures[f"VGG-SS: boxes at 0.5 (of {boxed.size} clips)"] = localization.success_rate(boxed)
    if boxed.size >= localization.LEAST_CLIPS:
        figures["VGG-SS: area under the success curve"] = localization.success_curve(boxed)[1]
    named = [row["sound_named"] for row in own.values() if row["sound_named"] is not None]
    if named:
        figures[f"notes name the right sound (of {len(named)} clips)"] = float(np.mean(named))
    return figures


def figures_table(figures: dict[str, float]) -> str:
    """Markdown, a row a figure."""
    lines = ["| figure | measured | wanted |", "| --- | --- | --- |"]
    for name, value in figures.items():
        wanted = "" if name not in TARGETS else f"{'at least ' if TARGETS[name] < 1 else ''}{TARGETS[name]:g}"
        lines.append(f"| {name} | {value:.3f} | {wanted} |")
    return "\n".join(lines)


def clips_table(rows: list[dict]) -> str:
    """Markdown, a row a clip with its own sound."""
    lines = [
        "| clip | s | s with a mask | sounding or not, right | mask IoU | box IoU | right noun | commonest sentence |",
        "| --- " * 8 + "|",
    ]
    boxed = {row["clip"]: row for row in rows if row["box_iou"] is not None}
    for row in rows:
        if row["sound"] == "own":
            box = f"{boxed[row['clip']]['box_iou']:.2f}" if row["clip"] in boxed else ""
            cells = [row["clip"], row["seconds"], row["masked_seconds"], _of(row["sounding"]), _mean(row["mask_iou"]),
                     box, _of(row["noun"]), commonest(row["sentences"])]  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def sounds_table(rows: list[dict]) -> str:
    """Markdown, a row a sound of the clips whose sound was changed."""
    lines = ["| clip | sound | s with a mask | mask IoU with the source | sentences | heard |", "| --- " * 6 + "|"]
    changed = {row["clip"] for row in rows if row["sound"] in SOUNDS.values()}
    for row in rows:
        if row["clip"] in changed:
            heard = "; ".join(note.removeprefix("heard, ") for note in row["notes"] if note.startswith("heard"))
            cells = [row["clip"], row["sound"], f"{row['masked_seconds']} of {row['seconds']}", _mean(row["mask_iou"]),
                     " / ".join(sentence or "-" for sentence in row["sentences"]), heard]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if changed else ""


def commonest(sentences: list[str]) -> str:
    """The sentence of most seconds that have one."""
    said = [sentence for sentence in sentences if sentence]
    return max(dict.fromkeys(said), key=said.count) if said else ""


def _of(counts: tuple[int, int] | None) -> str:
    return f"{counts[0]} of {counts[1]}" if counts and counts[1] else ""


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.2f}" if values else ""


def sounding_truth(case: Case, levels: np.ndarray) -> np.ndarray:
    """int [t]: 1 where something sounds whose source is in the picture, 0 where not, -1 where nobody has looked.

    Known are clips in which nothing in the picture sounds, seconds with a hand mask, and clips whose source was seen
    in every second (real_clips.json: in_view). In the last two a second sounds where its level is above QUIET_DB.
    """
    truth = np.full(len(levels), -1)
    if case.nobody:
        truth[:] = 0
        return truth
    looked_at = range(len(levels)) if case.wanted.get("in_view") else [one for one in case.masks if one < len(levels)]
    truth[list(looked_at)] = levels[list(looked_at)] > QUIET_DB
    return truth


def _against_boxes(case: Case, masks: np.ndarray) -> dict:
    if case.boxes is None:
        return {"box_iou": None, "mask_on_boxes": None}
    mask = masks[case.box_second]
    boxes = localization.boxes_in_pixels(case.boxes, *mask.shape)
    return {"box_iou": localization.box_iou(mask, boxes), "mask_on_boxes": localization.mask_on_boxes(mask, boxes)}


def _against_wishes(wanted: dict, seconds: list, notes: list[str], truth: np.ndarray) -> dict:
    """Right nouns: (sounding seconds whose sentence holds a wanted noun, sounding seconds). Sounds: in the notes?"""
    nouns, sounds = wanted.get("nouns"), wanted.get("sounds")
    spoken = [set(one.caption.lower().strip(".").replace(",", "").split()) for one in seconds]
    right = [bool(words & set(nouns or ())) for words, sounding in zip(spoken, truth == 1, strict=True) if sounding]
    heard = " ".join(note for note in notes if note.startswith("heard"))
    return {
        "noun": (sum(right), len(right)) if nouns else None,
        "sound_named": any(f"{sound} (" in heard for sound in sounds) if sounds else None,
    }


def _iou(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(segmentation.iou(*segmentation.overlap(predicted, true)))


def _predictor(args) -> Predictor:
    if args.model == "ssuformer":
        return Predictor.from_checkpoint(args.checkpoint)
    from ssu_jax.conversion import getting
    from ssu_jax.inference import loading

    return Predictor.from_published(getting.ready(loading.PUBLISHED, args.weights_dir) if args.weights_dir else None)


if __name__ == "__main__":
    sys.exit(main())
