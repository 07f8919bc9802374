"""T-VSL and records in, scores of heat maps out: the part of `ssu evaluate` for the family "tvsl"."""

import hashlib
import sys
from typing import Any

import tqdm

from ssu_jax.data import mixtures, records
from ssu_jax.data.records import RecordSource
from ssu_jax.inference.phrases import parts_of
from ssu_jax.metrics import published
from ssu_jax.types import UserError


def scores(
    model: tuple,
    directory: str,
    split: str,
    *,
    batch_size: int | None = None,
    num_clips: int = 0,
    seed: int = 0,
    sources: int | None = None,
    classes: str | None = None,
    as_it_is: bool = False,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Flat metrics of localization.evaluate, and facts of the run. model: (config, tokenizer, params, step).

    sources: of a mixture, the configuration's by default (1 as it is). classes: the only ones that sound, commas
    between. threshold: of heat, the configuration's by default. The other options as in mixtures.eval_mixtures, which
    raises UserError.
    """
    import jax

    from ssu_jax import localization, models
    from ssu_jax.models.tvsl import locating

    config, tokenizer, params, step = model
    if threshold is not None:
        if config.tvsl.mode == "released":
            raise UserError("--threshold is of mode corrected; a checkpoint of mode released cuts as T-VSL's code "
                            "does: leave it out")  # fmt: skip
        config.tvsl.threshold = threshold
        config.validate()
    named = parts_of(classes, config.data.classes) if classes else None
    if sources is None:
        sources = 1 if as_it_is else config.tvsl.num_sources
    batches = mixtures.eval_mixtures(
        config, split, batch_size or config.eval.batch_size, num_clips, directory,
        num_sources=sources, classes=named, seed=seed, as_it_is=as_it_is,
    )  # fmt: skip
    source = RecordSource(directory, split)
    with tqdm.tqdm(desc=split, unit="mixture", file=sys.stderr, dynamic_ncols=True, disable=None) as bar:
        locate = locating.make_locate(models.build(config, tokenizer))
        metrics = localization.evaluate(locate, jax.device_put(params), config, batches, bar.update)
    dataset = published.dataset_name([records.decode_labels(source[0]).dataset], source.manifest["classes"])
    return metrics | {
        "model": config.name, "family": config.family, "mode": config.tvsl.mode, "step": step, "split": split,
        "sources_each": sources, "as_it_is": as_it_is, "records_digest": source.digest, "dataset": dataset,
        "num_clips": metrics["num_mixtures"], "threshold": config.tvsl.threshold,
        "threshold_given": threshold is not None, "only_classes": ",".join(named or ()),
    }  # fmt: skip


def told(metrics: dict[str, Any]) -> str:
    """What was mixed, for the name of a file: "2-sources", "1-source-as-it-is", "2-sources-of-1a2b3c4d" (a digest of
    the classes), "2-sources-cut-0.5" (a threshold that was asked for).
    """
    count, classes = metrics["sources_each"], metrics["only_classes"]
    return "-".join(
        [str(count), "source" if count == 1 else "sources", *(["as-it-is"] if metrics["as_it_is"] else []),
         *(["of", hashlib.sha256(classes.encode()).hexdigest()[:8]] if classes else []),
         *([f"cut-{metrics['threshold']:g}"] if metrics["threshold_given"] else [])]
    )  # fmt: skip
