"""Records -> batches, in an order that depends on (seed, step) alone.

Position p of training, p = step * batch_size + row, is record permutation(seed, p // n)[p % n], changed by draws
keyed with (seed, p). Nothing is carried from step to step, so a run can begin at any step, with any number of
reader processes, and see the same batches. Grain executes the order (threads, processes, prefetch); batches are
made before Grain splits the work, since after it their content would depend on the number of workers.
Where Grain is not installed, threads of this process execute the same order.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssu_jax.config import Config
from ssu_jax.config.data import DataConfig
from ssu_jax.data import audio, records, transforms
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import Batch, Clip, SoundObject, UserError

MAX_STEPS = 1 << 40  # "endless" for Grain, whose datasets have a length
THREADS = 2  # a batch each; more only help where decoding waits for a slow disk
AHEAD = 2  # batches that wait ready, in each process
GRACE_SECONDS = 5  # for what a reader process that has ended left in its queue
STALL_SECONDS = 300
PEER_LOST, STALLED, DAMAGED = 75, 76, 78  # exit codes, DESIGN section 9


def train_batches(config: Config, tokenizer: Tokenizer, start_step: int = 0) -> Iterator[Batch]:
    """Batches of the training split from `start_step` on, without end; NumPy arrays, shapes in types.Batch.

    Raises UserError: no such split, a class that the config does not name, fewer records than 1, a damaged
    record (exit code 78). The first error ends the iteration.
    """
    data = config.data
    source = open_source(data.dir, data.train_split, data, verify=data.verify_shards)
    make = _TrainingExample(source, data, tokenizer, config.train.seed)
    return _run(make, config.train.batch_size, start_step, MAX_STEPS, data.num_workers)


def eval_batches(
    config: Config,
    tokenizer: Tokenizer,
    split: str,
    batch_size: int,
    num_clips: int = 0,
    directory: str | None = None,
) -> Iterator[Batch]:
    """The first `num_clips` records (0: all) in their order, unchanged. The last batch is filled up with
    examples whose record is -1 and whose frames are not valid.
    """
    data = config.data
    source = open_source(directory or data.dir, split, data)
    count = min(num_clips or len(source), len(source))
    make = _EvaluationExample(source, data, tokenizer, count)
    return _run(make, batch_size, 0, -(-count // batch_size), 0)


def open_source(directory: str, split: str, data: DataConfig, verify: bool = False) -> records.RecordSource:
    """The records of a split, its classes checked against the config; `verify` compares its files' sha256.

    Raises UserError.
    """
    if not directory:
        raise UserError("no directory of records: name one with --config.data.dir=DIR (`ssu prepare` makes records)")
    source = records.RecordSource(directory, split, verify)
    if not len(source):
        raise UserError(f"the split {split!r} in {directory} holds no records: make some with `ssu prepare`")
    unknown = sorted(set(source.manifest["classes"]) - set(data.classes))
    if unknown:
        raise UserError(
            f"{directory}: the records hold the class {unknown[0]!r}, which config.data.classes does not name: "
            "use the classes of the manifest, in one order for training and evaluation"
        )
    return source


def clip_to_example(clip: Clip, data: DataConfig, tokenizer: Tokenizer, record: int = -1) -> Batch:
    """A clip as one row of a batch: cut or padded to num_frames, resized, its labels as arrays.

    Raises UserError for a class that `data.classes` does not name.
    """
    t, size = data.num_frames, data.image_size
    frames = clip.frames[:t]
    if frames.shape[1:3] != (size, size):
        frames = transforms.resize_frames(frames, size, size)
    valid = np.zeros(t, bool)
    valid[: len(frames)] = clip.valid[:t]
    captions = (*clip.captions[:t], *[""] * (t - len(frames)))
    return Batch(
        frames=_padded(frames, t),
        log_mel=audio.second_patches(
            audio.to_float(clip.sound, clip.sample_rate, data.sample_rate), data.sample_rate, t, data.log_offset
        ),
        frame_valid=valid,
        text_ids=np.stack([tokenizer.encode(caption, data.max_text_tokens) for caption in captions]),
        scene_label=np.int32(data.classes.index(clip.category) if clip.category in data.classes else -1),
        record=np.int32(record),
        **_labels(clip.objects, data),
    )


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch. Raw bits are the same in every NumPy version; `Generator.permutation` may change."""
    return np.argsort(_bits(seed, 0, epoch).random_raw(size), kind="stable")


_cached_permutation = functools.lru_cache(maxsize=4)(permutation)  # threads read around the end of an epoch


class _TrainingExample:
    """Position -> example, for one process after another: picklable, no state."""

    def __init__(self, source: records.RecordSource, data: DataConfig, tokenizer: Tokenizer, seed: int):
        seconds = min(data.train_seconds or data.num_frames, data.num_frames)
        self.data = dataclasses.replace(data, num_frames=seconds)
        self.source, self.tokenizer, self.seed = source, tokenizer, seed

    def __call__(self, position: int) -> Batch:
        epoch, place = divmod(position, len(self.source))
        number = int(_cached_permutation(self.seed, epoch, len(self.source))[place])
        clip = _decode(self.source, number)
        rng = np.random.Generator(_bits(self.seed, 1, position))
        start = int(rng.integers(max(len(clip.frames) - self.data.num_frames, 0) + 1))
        clip = transforms.stretch(clip, start, self.data.num_frames)
        return clip_to_example(transforms.augment(clip, self.data.augment, rng), self.data, self.tokenizer, number)


class _EvaluationExample:
    def __init__(self, source: records.RecordSource, data: DataConfig, tokenizer: Tokenizer, count: int):
        self.source, self.data, self.tokenizer, self.count = source, data, tokenizer, count

    def __call__(self, position: int) -> Batch:
        if position < self.count:
            return clip_to_example(_decode(self.source, position), self.data, self.tokenizer, position)
        filler = clip_to_example(_decode(self.source, 0), self.data, self.tokenizer)
        return filler._replace(frame_valid=np.zeros_like(filler.frame_valid))


def _decode(source: records.RecordSource, number: int) -> Clip:
    try:
        return records.decode_clip(source[number])
    except ValueError as error:
        raise UserError(
            f"{source.directory}, split {source.split}: record {number} cannot be used: {error}", 78
        ) from None


def _labels(objects: Sequence[SoundObject], data: DataConfig) -> dict[str, np.ndarray]:
    t, size = data.num_frames, data.image_size
    masks, semantic = np.zeros((t, size, size), np.uint8), np.zeros((t, size, size), np.int8)
    sources, audible = np.zeros((2, t, len(data.classes)), np.uint8)
    for item in objects:
        label = _class_number(item.name, data)
        sounding = _padded(item.sounding[:t], t)
        audible[:, label] |= sounding
        if not item.on_screen:
            continue
        sources[:, label] |= sounding
        if item.masks is None:
            semantic[:] = -1  # it is somewhere in the picture
            continue
        seen = item.masks[:t]
        if seen.shape[1:] != (size, size):
            seen = transforms.resize_masks(seen, size, size)
        seen = _padded(seen, t)
        masks |= seen & sounding[:, None, None]
        semantic[seen & (semantic >= 0)] = label + 1
    return {"masks": masks, "semantic": semantic, "source_labels": sources, "audible_labels": audible}


def _class_number(name: str, data: DataConfig) -> int:
    try:
        return data.classes.index(name)
    except ValueError:
        raise UserError(f"a record holds the class {name!r}, which config.data.classes does not name: add it") from None


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    """Zeros after the end of the first axis."""
    if len(values) == length:
        return values
    return np.concatenate([values, np.zeros((length - len(values), *values.shape[1:]), values.dtype)])


def _bits(seed: int, purpose: int, number: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence((seed, purpose, number)))


def _stack(examples: Sequence[Batch]) -> Batch:
    return Batch(*(np.stack(values) for values in zip(*examples, strict=True)))


def _run(make: Callable[[int], Batch], batch_size: int, start: int, stop: int, num_workers: int) -> Iterator[Batch]:
    """Batches start to stop - 1, where batch k holds the examples k * batch_size onwards."""
    if importlib.util.find_spec("grain") is None:
        return _run_in_threads(make, batch_size, start, stop)
    return _run_in_grain(make, batch_size, start, stop, num_workers)


def _run_in_grain(make, batch_size: int, start: int, stop: int, num_workers: int) -> Iterator[Batch]:
    import grain
    from absl import flags

    batches = grain.MapDataset.range(stop * batch_size).map(make).batch(batch_size, batch_fn=_stack)[start:]
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS + AHEAD))
    if not num_workers:
        return _until_error(iter(dataset))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read its flags, also where no absl program runs
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=AHEAD)
    return _supervised(
        iter(dataset.mp_prefetch(options, worker_init_fn=functools.partial(_end_with_parent, os.getpid())))
    )


def _until_error(iterator) -> Iterator[Batch]:
    """Grain's iterator goes on after an error and has then lost batches; this one has ended."""
    try:
        yield from iterator
    finally:
        iterator.close()


def _supervised(iterator) -> Iterator[Batch]:
    """Hands batches on, and ends with an error when a reader process has ended or hangs: Grain would wait for ever."""
    ready, closed = queue.Queue(maxsize=1), threading.Event()
    others = set(multiprocessing.active_children())

    def offer(item):
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.5)
                break
            except queue.Full:
                continue

    def feed():
        try:
            for batch in iterator:
                offer(Batch(*(np.array(values) for values in batch)))  # out of the memory shared with the reader
            offer(None)
        except BaseException as error:
            offer(error)

    def close():
        with contextlib.suppress(Exception):  # Grain's, when the other thread is still reading
            iterator.close()

    threading.Thread(target=feed, daemon=True).start()
    readers = set()
    try:
        while (batch := _next_batch(ready, readers, others)) is not None:
            yield batch
    finally:
        closed.set()
        # Aside, since Grain waits without limit for a reader that has ended with exit code 0.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(GRACE_SECONDS)
        for reader in readers:
            reader.kill()


def _next_batch(ready: queue.Queue, readers: set, others: set) -> Batch | None:
    """The next batch, None after the last. `readers` gathers the processes that came after `others`."""
    started = time.monotonic()
    while True:
        with contextlib.suppress(queue.Empty):
            item = ready.get(timeout=0.5)
            break
        readers.update(child for child in multiprocessing.active_children() if child not in others)
        waited = time.monotonic() - started
        if waited > GRACE_SECONDS and not all(reader.is_alive() for reader in readers):
            item = RuntimeError("a reader process ended")
            break
        if waited > STALL_SECONDS:
            raise UserError(f"the reader processes gave no batch for {STALL_SECONDS} s: start again to resume", STALLED)
    if isinstance(item, RuntimeError):  # Grain's word for a reader that was killed
        codes = sorted({reader.exitcode for reader in readers} - {None})
        remedy = "start again to resume, with fewer config.data.num_workers if it recurs"
        raise UserError(
            f"a reader process ended (exit code {codes or 'unknown'}; -9 is often want of memory): {remedy}", PEER_LOST
        ) from item
    if isinstance(item, BaseException):
        raise item
    return item


def _end_with_parent(parent: int, worker: int, num_workers: int) -> None:
    """Ends this worker soon after its parent: killed parents (SIGKILL) cannot do it, and workers would stay."""
    del worker, num_workers
    # Ctrl-C reaches every process of the terminal; the parent saves first and then ends its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(PEER_LOST)

    threading.Thread(target=watch, daemon=True).start()


def _run_in_threads(make, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
    def batch(number: int) -> Batch:
        return _stack([make(number * batch_size + row) for row in range(batch_size)])

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        numbers = iter(range(start, stop))
        waiting = deque(pool.submit(batch, number) for number in itertools.islice(numbers, THREADS + AHEAD))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(batch, number) for number in itertools.islice(numbers, 1))
            yield ready
