"""A checkpoint and records in, the table and metrics.json out: what `ssu evaluate` runs."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm

from ssu_jax import files
from ssu_jax.config import rows
from ssu_jax.data.records import RecordSource
from ssu_jax.inference import localizing
from ssu_jax.metrics import heat_map_report, published, report
from ssu_jax.metrics.segmentation import AVSBENCH_BATCH_SIZE
from ssu_jax.types import UserError

_OWN_SCORES = ({"miou", "bleu_4"}, {"ciou@0.3", "sources_each"})  # of SSUFormer, of T-VSL


def score_checkpoint(
    checkpoint: str | None,
    directory: str,
    split: str,
    *,
    family: str | None = None,
    published: Mapping[str, pathlib.Path] | None = None,
    out: str | None = None,
    batch_size: int | None = None,
    num_clips: int = 0,
    protocol: str = "ssu",
    seed: int = 0,
    routing: str | None = None,
    mixtures: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Scores a checkpoint on a split, prints the table, writes the flat metrics as JSON, returns where.

    family: what the checkpoint is to hold, None for whatever it does; "late_fusion" has none. published: folders of
    its weights (see loading.load_published).
    out: None is `metrics-<records' digest>-<split>.json` in the checkpoint's folder, or in the current one where
    that cannot be written. batch_size: None is the configuration's, for the AVSBench protocol the published one.
    routing: folder for pictures of which experts serve what (see routing.py), "" beside the figures, None for none.
    mixtures: for T-VSL, what is mixed: `sources`, `classes`, `as_it_is`, `threshold` of localizing.scores.
    Raises UserError for unusable records, checkpoint, numbers or place: before the model runs, where possible.
    """
    if (batch_size is not None and batch_size < 1) or num_clips < 0:
        raise UserError(f"--batch-size must be at least 1 and --num-clips at least 0, got {batch_size}, {num_clips}")
    source = RecordSource(directory, split)
    if out:
        place = pathlib.Path(out)
        _check_writable(place)
    records = {"directory": directory, "split": split, "num_clips": num_clips}
    if family == "late_fusion" or published:
        model, folder, remark = _late_fusion(published, source.manifest["classes"]), pathlib.Path.cwd(), ""
    else:
        model, folder, remark = _checkpoint(checkpoint, family)
    if routing is not None:
        _check_routing(model[0], routing)
    if model[0].family == "tvsl":
        options = {**records, "batch_size": batch_size, "seed": seed, **(mixtures or {})}
        metrics = _localized(model, remark, protocol, options)
    else:
        _check_unmixed(model[0].family, mixtures or {})
        metrics = _run(*model, batch_size, protocol, seed=seed, **records)
        print(report.table(metrics), flush=True)
    content = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
    if not out:
        place = folder / _default_name(metrics, source.digest, split, protocol, num_clips)
        try:
            _check_writable(place)
        except UserError:
            place = pathlib.Path(place.name).absolute()
            print(f"{folder} cannot be written: the figures go to the current folder", file=sys.stderr)
    files.atomic_write(place, content)
    print(f"\nfigures in {place}", flush=True)
    if routing is not None:
        shown = pathlib.Path(routing) if routing else place.with_name(f"{place.stem}-routing")
        facts = {name: metrics[name] for name in ("model", "step", "split", "records_digest", "num_clips")}
        _show_routing(shown, model, facts, batch_size, records)
    return place


def compare(table: str, ours: Sequence[dict]) -> None:
    """Prints a paper's tables with the figures of our evaluations beside them."""
    print(published.render(table, ours), flush=True)


def read_metrics(place: str | os.PathLike) -> dict:
    """The figures of an evaluation. Raises UserError for a file that is none of ours."""
    place = pathlib.Path(place)
    try:
        metrics = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--metrics {place} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--metrics {place} is no JSON file: wanted one that `ssu evaluate` wrote") from error
    facts = {"split", "num_clips", "records_digest"}
    if not isinstance(metrics, dict) or not any(facts | own <= metrics.keys() for own in _OWN_SCORES):
        raise UserError(f"--metrics {place} holds no scores: wanted a file that `ssu evaluate` wrote")
    return metrics


def _checkpoint(checkpoint: str | None, family: str | None) -> tuple[tuple, pathlib.Path, str]:
    """((config, tokenizer, params, step), the folder that the checkpoint names, what to know of its weights)."""
    from ssu_jax import checkpoint as checkpoints
    from ssu_jax.inference import loading, locator

    checkpoint = checkpoint or (locator.SHIPPED if family == "tvsl" else None)
    step_or_folder = checkpoints.locate(checkpoint)
    holds = checkpoints.read_family(step_or_folder)
    if family and holds != family:
        raise UserError(f"--model says {family}, {step_or_folder} holds family {holds}: leave --model out, or name "
                        "another checkpoint")  # fmt: skip
    model = checkpoints.read_model(step_or_folder, loading.parameter_shapes)
    step = checkpoints.made_by(step_or_folder).get("step")
    is_step = step_or_folder.name.isdecimal()  # of a working directory, which may be what was named
    folder = pathlib.Path(checkpoint).absolute() if checkpoint and is_step else step_or_folder
    return (*model, step), folder, loading.remark_on(step_or_folder)


def _late_fusion(published: Mapping[str, pathlib.Path] | None, classes: Sequence[str]) -> tuple:
    """(config, words, params, step 0) for records with these classes."""
    from ssu_jax.inference import loading

    model = loading.load_published(published)
    model.config.data.classes = tuple(classes)
    return *model, 0


def _run(config, tokenizer, params, step, batch_size: int | None, protocol: str, **options) -> dict:
    """The figures; `options` as `evaluation.evaluate`."""
    import jax

    from ssu_jax import evaluation, models
    from ssu_jax.models import decoding

    if batch_size is None:
        batch_size = AVSBENCH_BATCH_SIZE if protocol == "avsbench" else config.eval.batch_size
    with tqdm.tqdm(desc=options["split"], unit="clip", file=sys.stderr, dynamic_ncols=True, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        metrics = evaluation.evaluate(
            decoding.make_describe(models.build(config)),
            jax.device_put(params),
            config,
            tokenizer,
            batch_size=batch_size,
            protocol=protocol,
            progress=advance,
            **options,
        )
    row = rows.row_of(config) if config.family == "ssuformer" else config.name
    return metrics | {"model": config.name, "row": row, "step": step}


def _check_unmixed(family: str, mixtures: Mapping[str, Any]) -> None:
    if any(value is not None and value is not False for value in mixtures.values()):
        raise UserError("--sources, --classes, --as-it-is and --threshold are for T-VSL, this checkpoint holds family "
                        f"{family}: leave them out")  # fmt: skip


def _localized(model: tuple, remark: str, protocol: str, options: Mapping[str, Any]) -> dict:
    if protocol != "ssu":
        raise UserError(f"--protocol {protocol} is of SSUFormer's masks; T-VSL's is its mode, a part of the checkpoint")
    metrics = localizing.scores(model, **options) | {"remark": remark}
    print(heat_map_report.table(metrics), flush=True)
    return metrics


def _check_routing(config, folder: str) -> None:
    from ssu_jax import expert_use

    expert_use.check(config)
    if folder:
        files.make_folder(pathlib.Path(folder))


def _show_routing(folder: pathlib.Path, model: tuple, facts: dict, batch_size: int | None, records: dict) -> None:
    import jax

    from ssu_jax.inference import routing

    config, tokenizer, params, _ = model
    size = batch_size or config.eval.batch_size
    lines = routing.write(folder, jax.device_put(params), config, tokenizer, facts, batch_size=size, **records)
    print("\n" + "\n".join(lines), flush=True)
    print(f"\nrouting in {folder}", flush=True)


def _default_name(metrics: Mapping, digest: str, split: str, protocol: str, num_clips: int) -> str:
    """Other figures of the same records get other names: none replaces the whole table."""
    first = f"-first{num_clips}" if num_clips else ""
    if metrics.get("family") == "tvsl":
        return f"localization-{digest[:12]}-{split}-{localizing.told(metrics)}{first}.json"
    kind = ("" if protocol == "ssu" else f"-{protocol}") + first
    return f"metrics-{digest[:12]}-{split}{kind}.json"


def _check_writable(place: pathlib.Path) -> None:
    if place.is_dir():
        raise UserError(f"cannot write {place}: it is a folder; give the name of a file")
    folder = files.make_folder(place.absolute().parent)
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {place}: no permission to write there: choose another place")
