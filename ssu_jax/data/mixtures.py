"""Records -> Mixtures: k solos of different classes joined into one picture and one sound, for family "tvsl".

A solo (solos.py) is a second of a record in which one class sounds and is seen. The pictures of k of them stand side by
side, their sounds are added, neither clipped nor made louder or softer. No picture shows the class of another's
source: which of two bells is heard no one could tell.

Position p depends on (seed, p) alone, as in pipeline.py: the first solo comes from the record that order.py gives, or
from another by chance if that has none, or none that anything fits; the others come from records by chance, until k
fit together.

Evaluation takes fixed mixtures, unchanged, or the records one by one *as they are*: one square picture in which k
classes sound (k = 1: VGG-SS, MUSIC's solos; k = 2: MUSIC's duets, whose two sources are in one picture), at the
second nearest to the middle of the clip that has boxes or sources. A record that has no such second is a row whose
sources are -1.

Mode "released" (config.tvsl.mode): pictures are changed in training as the public code does it, enlarged by a tenth
and cut back at a random place, and mirrored; and boxes of MUSIC are taken for corners. Ours differs in that a picture
whose source would be cut, where masks tell, is not cut.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssu_jax.config import Config
from ssu_jax.data import audio, execution, pipeline, records, solos, transforms
from ssu_jax.data.order import Order, draws
from ssu_jax.data.source import JoinedSource, RecordSource
from ssu_jax.types import Clip, Mixtures, UserError

MOST_TRIES = 1 << 13  # records for one mixture
_FIRST_PATIENCE = 32  # tries
_RELEASED_ENLARGED = 1.1  # 224 pixels -> 246


def train_mixtures(config: Config, start_step: int = 0, rows: Sequence[int] | None = None) -> Iterator[Mixtures]:
    """Batches of the training split from `start_step` on, without end; NumPy arrays, shapes in types.Mixtures.

    rows: those of every batch that are made, all by default. Classes of config.tvsl.held_out are neither heard nor
    seen in any of them.
    Raises UserError: no such split, fewer classes than sources, records whose sound has a lower rate than the encoder
    wants, a damaged record (exit code 78), records without enough solos. The first error ends the iteration.
    """
    data, tvsl, seed = config.data, config.tvsl, config.train.seed
    source = pipeline.open_source(data.dir, data.train_split, data, verify=data.verify_shards)
    order = pipeline.training_order(source, data, seed)
    allowed = [name for name in data.classes if name not in _known(tvsl.held_out, config, "config.tvsl.held_out")]
    mixture = _Mixture(config, source, order, seed, num_sources=tvsl.num_sources, allowed=allowed, training=True)
    return execution.run_rows(mixture, config.train.batch_size, rows, start_step, data.num_workers)


def eval_mixtures(
    config: Config,
    split: str,
    batch_size: int,
    num_mixtures: int = 0,
    directory: str | None = None,
    *,
    num_sources: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    as_it_is: bool = False,
) -> Iterator[Mixtures]:
    """`num_mixtures` fixed mixtures (0: as many as records), unchanged. In rows that fill up the last batch every
    source is -1.

    num_sources: of a mixture, config.tvsl's by default.  classes: the only ones that sound, all by default.
    as_it_is: the records in their order in place of mixtures, one picture [y, y] with `num_sources` sources.
    Raises UserError as `train_mixtures`.
    """
    data = config.data
    source = pipeline.open_source(directory or data.dir, split, data)
    count = config.tvsl.num_sources if num_sources is None else num_sources
    allowed = data.classes if classes is None else _known(classes, config, "--classes")
    total = num_mixtures or len(source)
    if as_it_is:
        make, total = _AsItIs(config, source, count, allowed), min(total, len(source))
    else:
        make = _Mixture(config, source, Order(seed, source.lengths), seed, num_sources=count, allowed=allowed)
    return execution.run(_Filled(make, total), batch_size, 0, -(-total // batch_size), 0)


class _Scenes:
    """Pieces of records, and rows of them: what both kinds of samples share. Picklable, no state."""

    def __init__(self, config: Config, source: RecordSource | JoinedSource, num_sources: int, allowed: Sequence[str]):
        self.data, self.tvsl, self.source = config.data, config.tvsl, source
        self.num_sources, self.allowed = num_sources, frozenset(allowed)
        if not 1 <= num_sources <= len(self.allowed):
            raise UserError(
                f"{num_sources} sources of different classes were asked for, of {len(self.allowed)} classes that may "
                f"sound ({_named(allowed)}): ask for 1 to {len(self.allowed)}"
            )
        self.labels(0)  # sound of too low a rate is told before anything runs

    def labels(self, number: int) -> Clip:
        """Raises UserError if the published sound encoder was to hear sound that has lost its upper half."""
        found = records.read(self.source, number, records.decode_labels)
        if self.tvsl.trio == "audioclip" and found.sample_rate < self.data.sample_rate:
            raise UserError(
                f"{self.source.directory}, split {self.source.split}: record {number} holds sound of "
                f"{found.sample_rate} Hz, config.tvsl.trio audioclip wants {self.data.sample_rate}: prepare the "
                f"records again from their videos, `ssu prepare NAME --sample-rate {self.data.sample_rate}`"
            )
        return found

    def piece(
        self, number: int, moment: solos.Moment, change: Callable[[Clip], Clip] | None = None
    ) -> solos.Piece | None:
        """The moment of a record, changed in a way that leaves its sources in sight; None if one is hidden."""
        clip = records.read(self.source, number, records.decode_second, second=moment.second)
        clip = solos.excerpt(clip, moment, self.tvsl.sound_seconds)
        if self.tvsl.mode == "released":
            clip = solos.read_as_released(clip)
        changed = change(clip) if change else clip
        return solos.piece(changed if solos.still_seen(changed) else clip, moment.names, self.data)

    def row(self, pieces: Sequence[solos.Piece], numbers: Sequence[int]) -> Mixtures:
        """Pieces side by side from the left, their sounds added; a source keeps the place of its piece."""
        size = self.data.image_size
        regions = np.zeros((self.num_sources, size, size * len(pieces)), np.uint8)
        source = 0
        for place, piece in enumerate(pieces):
            for region in piece.regions:
                regions[source, :, place * size : (place + 1) * size] = region
                source += 1
        return Mixtures(
            pictures=np.concatenate([piece.picture for piece in pieces], axis=1),
            sound=self._heard(sum(piece.sound for piece in pieces)),
            sources=np.array([label for piece in pieces for label in piece.sources], np.int32),
            regions=regions,
            region_known=np.array([known for piece in pieces for known in piece.region_known]),
            present=np.bitwise_or.reduce([piece.present for piece in pieces]),
            record=np.array(numbers, np.int32),
        )

    def nothing(self, num_pictures: int) -> Mixtures:
        """A row that fills up a batch."""
        size, sources, samples = self.data.image_size, self.num_sources, self.tvsl.sound_seconds * self.data.sample_rate
        return Mixtures(
            pictures=np.zeros((size, size * num_pictures, 3), np.uint8),
            sound=self._heard(np.zeros(samples)),
            sources=np.full(sources, -1, np.int32),
            regions=np.zeros((sources, size, size * num_pictures), np.uint8),
            region_known=np.zeros(sources, bool),
            present=np.zeros(len(self.data.classes), np.uint8),
            record=np.full(sources, -1, np.int32),
        )

    def _heard(self, sound: np.ndarray) -> np.ndarray:
        if self.tvsl.trio == "audioclip":
            return sound.astype(np.float32)
        return audio.second_patches(sound, self.data.sample_rate, self.tvsl.sound_seconds, self.data.log_offset)


class _Mixture(_Scenes):
    """Position -> mixture of solos by chance."""

    def __init__(self, config, source, order: Order, seed: int, *, num_sources: int, allowed, training: bool = False):
        super().__init__(config, source, num_sources, allowed)
        self.order, self.seed, self.training = order, seed, training
        self.num_pictures = num_sources

    def __call__(self, position: int) -> Mixtures:
        rng = draws(self.seed, position)
        others = (self.order.by_chance(rng) for _ in range(MOST_TRIES - 1))
        pieces, numbers, taken = [], [], []
        patience = _FIRST_PATIENCE
        for tries, number in enumerate(itertools.chain([self.order(position)], others)):
            if tries == patience:  # what was taken first may fit nothing else
                pieces, numbers, taken, patience = [], [], [], 2 * patience
            fitting = self._fitting(self.labels(number), taken)
            if not fitting:
                continue
            moment = fitting[int(rng.integers(len(fitting)))]
            piece = self.piece(number, moment, (lambda clip: self._changed(clip, rng)) if self.training else None)
            if piece is None:
                continue
            pieces, numbers, taken = [*pieces, piece], [*numbers, number], [*taken, moment]
            if len(pieces) == self.num_sources:
                return self.row(pieces, numbers)
        raise UserError(
            f"{self.source.directory}, split {self.source.split}: {MOST_TRIES} records drawn gave no "
            f"{self.num_sources} seconds in each of which another class alone sounds and is seen, of "
            f"{_named(sorted(self.allowed))}: mix fewer (config.tvsl.num_sources), or add records"
        )

    def _fitting(self, labels: Clip, taken: Sequence[solos.Moment]) -> list[solos.Moment]:
        """The solos of a record that go with those already taken."""
        names = {name for moment in taken for name in moment.names}
        seen = frozenset().union(*(moment.seen for moment in taken))
        return [
            moment
            for moment in solos.moments(labels, 1, self.tvsl.sound_seconds)
            if moment.names[0] in self.allowed - seen
            and not moment.seen & names
            and not (self.training and moment.seen - self.allowed)
        ]

    def _changed(self, clip: Clip, rng: np.random.Generator) -> Clip:
        if self.tvsl.mode == "corrected":
            return transforms.augment(clip, self.data.augment, rng)
        size = self.data.image_size
        enlarged = int(_RELEASED_ENLARGED * size)
        top, left = (rng.integers(enlarged - size + 1, size=2) / enlarged).tolist()
        clip = transforms.crop(clip, size / enlarged, top, left) or clip
        return transforms.mirror(clip) if rng.random() < 0.5 else clip


class _AsItIs(_Scenes):
    """Record -> one picture of it."""

    num_pictures = 1

    def __call__(self, number: int) -> Mixtures:
        labels = self.labels(number)
        found = [
            moment
            for moment in solos.moments(labels, self.num_sources, self.tvsl.sound_seconds)
            if self.allowed.issuperset(moment.names)
        ]
        moment = solos.middle_one(found, labels)
        piece = None if moment is None else self.piece(number, moment)
        return self.nothing(1) if piece is None else self.row([piece], [number] * self.num_sources)


class _Filled:
    """The first `total` rows, and rows of nothing."""

    def __init__(self, make: _Mixture | _AsItIs, total: int):
        self.make, self.total = make, total

    def __call__(self, position: int) -> Mixtures:
        return self.make(position) if position < self.total else self.make.nothing(self.make.num_pictures)


def _known(names: Sequence[str], config: Config, where: str) -> Sequence[str]:
    unknown = [name for name in names if name not in config.data.classes]
    if unknown:
        raise UserError(
            f"{where} names {unknown[0]!r}, which config.data.classes does not: it names {_named(config.data.classes)}"
        )
    return names


def _named(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
