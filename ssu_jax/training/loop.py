"""The training loop: everything that touches files, devices, signals and the clock.

    batch --step--> state; now and then: log, checkpoint, evaluate. The step itself is pure (step.py).

The position in the data is the step and random keys come from it, so a run that was stopped or killed goes
on to the same weights bit for bit.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from ssu_jax import files, models, sharding
from ssu_jax.checkpoint import CheckpointStore, read_state
from ssu_jax.config import Config
from ssu_jax.data import mixtures, pipeline, records
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.tokenizer.phrases import plain
from ssu_jax.training import evaluations, initial, parts, processes, published, workdir
from ssu_jax.training.interruption import Interruption
from ssu_jax.training.logging import MetricsLog
from ssu_jax.training.optimizer import make_optimizer
from ssu_jax.training.prefetch import Prefetcher
from ssu_jax.training.state import first_state, state_shapes, told_parameters
from ssu_jax.training.step import jitted_step
from ssu_jax.training.watchdog import Watchdog
from ssu_jax.types import Batch, Mixtures, TrainState, UserError

NUMERIC_BUDGET = 77


def train(config: Config, path: str | pathlib.Path, *, verbose: bool = False) -> TrainState:
    """Trains to `train.num_steps`, or until SIGTERM or Ctrl-C, and returns the state, saved and sealed.

    A working directory that holds steps of the same run is taken up where it stands. Raises UserError for
    everything a user can mend: no records, another run's directory, a full disk, a loss that is not finite. One of
    several processes (`processes.join`) ends at once instead, and so do the others.
    """
    with contextlib.ExitStack() as stack, processes.guard():
        config.validate()
        source = pipeline.open_source(config.data.dir, config.data.train_split, config.data)
        interruption = stack.enter_context(Interruption())
        place = stack.enter_context(workdir.Workdir(path, is_owner=processes.is_first()))
        watchdog = stack.enter_context(Watchdog(config.train.stall_seconds, config.train.long_stall_seconds))
        processes.check_alike(workdir.facts(config, source.digest))
        place.check_shared()
        run, state = _start(config, source, place, interruption, watchdog, stack)
        if verbose:
            run.log.line(f"versions: {workdir.versions()}")
        return _run_to_end(run, state, stack)


@dataclasses.dataclass
class _Run:
    """What stays the same from step to step, and the updates that were skipped."""

    config: Config
    folder: pathlib.Path
    train_step: Callable
    place: Callable
    rows: tuple[int, ...]  # of a batch, that this process reads
    tokenizer: Tokenizer | None
    clip_ids: pipeline.ClipIds | None
    companions: dict[str, str]  # stored with every checkpoint
    store: CheckpointStore
    log: MetricsLog | processes.Silent
    evaluator: evaluations.Evaluator
    interruption: Interruption
    watchdog: Watchdog
    skipped: list[dict] = dataclasses.field(default_factory=list)


def _start(
    config: Config,
    source: records.RecordSource,
    place: workdir.Workdir,
    interruption: Interruption,
    watchdog: Watchdog,
    stack: contextlib.ExitStack,
) -> tuple[_Run, TrainState]:
    """Builds everything and restores the newest sound step, or begins a new run."""
    mesh = sharding.make_mesh(config.mesh.sizes)
    sharding.check_batch_size(config.train.batch_size, mesh, config.train.grad_accumulation)
    optimizer = make_optimizer(config.train)
    wanted = state_shapes(models.build(config), config, optimizer, mesh)
    parts.check(wanted.params, config.train)
    store = stack.enter_context(CheckpointStore(place.path))
    newest = store.find_newest()
    if newest is not None:
        workdir.check_same_run(newest, config, source.digest)
    weights, earlier = published.NOTHING, initial.NOTHING
    if newest is None:
        earlier = initial.read(config, wanted.params)
        weights = initial.over(published.read(config, wanted.params), earlier)
    tokenizer = earlier.tokenizer or _tokenizer_of(newest, source, config)
    clip_tokenizer = _clip_tokenizer_of(newest, config, wanted.params)
    model = models.build(config, tokenizer or clip_tokenizer)
    companions = workdir.companions(
        config,
        tokenizer.to_json() if tokenizer else "",
        source.manifest,
        workdir.published_weights(newest) if newest else weights.origins | earlier.origin,
        clip_tokenizer.to_json() if clip_tokenizer else "",
    )
    place.write_start(companions)
    if newest is None:
        state = first_state(model, config, optimizer, weights.params, mesh)
    else:
        state = read_state(newest, wanted)
    log = _log(config, place, store, int(state.step), stack)
    log.line(f"{config.name}: {told_parameters(state)}, {len(source)} training clips, {_told_devices()}, "
             f"from step {int(state.step)}")  # fmt: skip
    if newest is None:
        for line in initial.remarks(wanted.params, earlier) + published.remarks(config, wanted.params, weights):
            log.line(line)
    rows = sharding.rows_here(config.train.batch_size, mesh)
    run = _Run(
        config=config,
        folder=place.path,
        train_step=sharding.within(mesh, processes.compiled_by_all(jitted_step(model, config, optimizer, mesh))),
        place=lambda batch: sharding.place_rows(batch, rows, config.train.batch_size, mesh),
        rows=rows,
        tokenizer=tokenizer,
        clip_ids=clip_tokenizer.encode if clip_tokenizer else None,
        companions=companions,
        store=store,
        log=log,
        evaluator=evaluations.make(model, mesh, config, tokenizer, (log, interruption, watchdog)),
        interruption=interruption,
        watchdog=watchdog,
    )
    return run, state


def _told_devices() -> str:
    told = f"{jax.device_count()} x {jax.devices()[0].platform}"
    return told + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")


def _log(
    config: Config, place: workdir.Workdir, store: CheckpointStore, step: int, stack: contextlib.ExitStack
) -> MetricsLog | processes.Silent:
    is_scored = store.has_score(step)
    if not processes.is_first():
        return processes.Silent()
    return stack.enter_context(MetricsLog(place.path, step, config.train.num_steps, is_scored))


def _run_to_end(run: _Run, state: TrainState, stack: contextlib.ExitStack) -> TrainState:
    """Steps, boundaries and the last save."""
    total, step = run.config.train.num_steps, int(state.step)
    if step and run.evaluator.is_due(step) and not run.store.has_score(step):
        _evaluate(run, state, step)  # the run was stopped before this evaluation had ended
    run.log.start_clock(step)
    if run.config.family == "tvsl":
        made = mixtures.train_mixtures(run.config, step, run.rows)
    else:
        made = pipeline.train_batches(run.config, run.tokenizer, step, run.clip_ids, run.rows)
    batches = stack.enter_context(contextlib.closing(Prefetcher(made, run.place)))
    unread = None  # metrics of the step before, fetched while the next one computes
    while step < total and (batch := _next_batch(run, batches, unread)) is not None:
        state, metrics = run.train_step(state, batch)
        step += 1
        _settle(run, unread)
        unread = (step, metrics, batch.record)
        run.store.poll()
        if _saves_at(run, step):
            _settle(run, unread)
            unread = None
            run.watchdog.alive(may_take_long=True)
            run.store.save(step, state, run.companions)
            if run.evaluator.is_due(step) and not run.interruption.stops():
                _evaluate(run, state, step)
        if run.evaluator.draws_at(step) and not run.interruption.stops():
            run.watchdog.alive(may_take_long=True)
            run.evaluator.draw(state, step)
            run.log.start_clock(step)
        every = run.config.train.picture_every_steps
        if every and step % every == 0:
            run.log.draw_load(step)
    _settle(run, unread)
    batches.close()
    run.watchdog.alive(may_take_long=True)
    run.store.save(step, state, run.companions)
    run.store.wait()
    if step < total:
        run.log.line(f"stopped at step {step}, saved: the same command goes on from there")
    else:
        run.log.line(f"done: {step} steps, checkpoints in {run.store.folder}")
    return state


def _next_batch(run: _Run, batches: Prefetcher, unread: tuple | None) -> Batch | Mixtures | None:
    """None once a stop is requested. Ctrl-C reaches reader processes too: their death is then no error.

    One of several processes cannot stop alone: it waits for its rows, and all stop at the next step.
    """
    if run.interruption.stops():
        return None
    alone = jax.process_count() == 1
    under_way = jax.tree.leaves(unread[1])[:1] if unread else []
    try:
        batch = batches.next(
            lambda: alone and run.interruption.requested, lambda: not all(part.is_ready() for part in under_way)
        )
        run.log.waited(batches.waited_seconds)
        return batch
    except Exception:
        if alone and run.interruption.wait(1.0):
            return None
        raise


def _saves_at(run: _Run, step: int) -> bool:
    due = step % run.config.train.checkpoint_every_steps == 0 or step == run.config.train.num_steps
    return due or run.evaluator.is_due(step)


def _settle(run: _Run, unread: tuple | None) -> None:
    """Reads the metrics of a step: logs them when due, and watches the budget of skipped updates."""
    if unread is None:
        return
    step, metrics, record = unread
    values, train = jax.device_get(metrics), run.config.train
    run.watchdog.alive()
    run.log.advance(step)
    is_logged = step == 1 or step % train.log_every_steps == 0 or values["skipped_in_row"]
    numbers = multihost_utils.process_allgather(record, tiled=True).ravel().tolist() if is_logged else []
    if values["skipped_in_row"]:
        run.skipped.append({"step": step, "records": numbers})
        run.log.line(f"step {step}: update skipped, loss or gradient is not finite "
                     f"({values['skipped_in_row']} in a row, {values['skipped_steps']} in all)")  # fmt: skip
    if is_logged:
        run.log.train(step, values, train.batch_size, numbers)
    over_row = values["skipped_in_row"] >= train.max_skipped_in_row
    if over_row or values["skipped_steps"] >= train.max_skipped_steps:
        # Update n used batch n - 1 and key fold_in(seed, n - 1): with the newest checkpoint it can be run again.
        bundle = run.folder / f"replay-{step}.json"
        if processes.is_first():
            files.atomic_write(bundle, workdir.replay_bundle(run.companions, run.skipped))
        raise UserError(
            f"{values['skipped_in_row']} updates in a row and {values['skipped_steps']} in all were not finite: "
            f"stopped at step {step} without saving; {bundle} names the steps and records; lower "
            "train.learning_rate or look at these records",
            NUMERIC_BUDGET,
        )


def _evaluate(run: _Run, state: TrainState, step: int) -> None:
    score = run.evaluator.evaluate(state, step)
    if score is not None:
        run.store.record_score(step, score)
    run.log.start_clock(step)


def _clip_tokenizer_of(newest: pathlib.Path | None, config: Config, shapes: dict) -> CLIPTokenizer | None:
    """At the first start that of CLIP's published weights, later the run's own copy: the folder may be gone."""
    if newest is not None and (newest / workdir.CLIP_TOKENIZER).is_file():
        return CLIPTokenizer.load(newest / workdir.CLIP_TOKENIZER)
    return published.clip_tokenizer_of(config, shapes)


def _tokenizer_of(newest: pathlib.Path | None, source: records.RecordSource, config: Config) -> Tokenizer | None:
    """The run's own tokenizer: at the first start that of the published language model, or learned from sentences.

    Pre-training reads none, and has none; AudioCLIP's is CLIP's. The small trio reads the names of the classes.
    """
    if config.family == "pretraining" or (config.family == "tvsl" and config.tvsl.trio == "audioclip"):
        return None
    if newest is not None:
        return Tokenizer.load(newest / workdir.TOKENIZER)
    if config.family == "tvsl":
        raise UserError("config: family tvsl stands on trained encoders: name a run of `configs/trio.py` in "
                        "train.init_from, or take tvsl.trio=audioclip with tvsl.weights")  # fmt: skip
    if config.family == "trio":
        return Tokenizer.train(map(plain, config.data.classes), config.model.vocab_size)
    if config.model.language_model.weights:
        return published.tokenizer_of(config)
    captions = (text for number in range(len(source)) for text in records.decode_labels(source[number]).captions)
    return Tokenizer.train(captions, config.model.vocab_size)
