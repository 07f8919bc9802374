"""Set prediction: what the queries are to find, who is matched with what, and what it costs."""

import functools
import math

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from ssu_jax import losses, models
from ssu_jax.config import LossConfig, sizes

CLASSES, SIZE, FRAMES = 5, 16, 3
NOTHING = CLASSES  # the class of a query without a source
SURE = 20.0  # a logit


def picture(*objects):
    """masks, semantic and source_labels of one frame; an object is (class, rows, columns, sounds)."""
    masks, semantic = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.int8)
    labels = np.zeros(CLASSES, np.uint8)
    for kind, rows, columns, sounds in objects:
        semantic[rows, columns] = kind + 1
        masks[rows, columns] = sounds
        labels[kind] |= sounds
    return masks, semantic, labels


EMPTY = jax.tree.map(np.asarray, models.example_batch(sizes.tiny()))


def batch_of(*pictures):
    """One clip of these frames and of padding: of one shape, so that everything is compiled once."""
    missing = FRAMES - len(pictures)
    parts = zip(*pictures, *[PADDING] * missing, strict=True)
    masks, semantic, labels = (np.stack(part)[None] for part in parts)
    valid = np.array([[True] * len(pictures) + [False] * missing])
    known = dict.fromkeys(("frame_valid", "mask_known", "text_known", "source_known"), valid)
    return EMPTY._replace(masks=masks, semantic=semantic, source_labels=labels, **known)


LEFT, RIGHT, ALL = slice(0, 8), slice(8, 16), slice(0, 16)
TWO = picture((3, LEFT, LEFT, 1), (1, RIGHT, RIGHT, 1))
SILENT = picture((2, LEFT, ALL, 0))
PADDING = picture((0, ALL, ALL, 1))  # not to be looked at


def quarter(rows, columns):
    mask = np.zeros((4, 4), np.float32)
    mask[slice(rows.start // 4, rows.stop // 4), slice(columns.start // 4, columns.stop // 4)] = 1.0
    return mask


def predicted(*frames, num_queries=4):
    """Logits of queries that are sure; a frame is a list of (class, mask at stride 4)."""
    classes = np.full((1, FRAMES, num_queries, CLASSES + 1), -SURE, np.float32)
    masks = np.full((1, FRAMES, num_queries, 4, 4), -SURE, np.float32)
    classes[..., NOTHING] = SURE
    for place, frame in enumerate(frames):
        for query, (kind, mask) in enumerate(frame):
            classes[0, place, query] = -SURE
            classes[0, place, query, kind] = SURE
            masks[0, place, query] = SURE * (2.0 * mask - 1.0)
    return classes, masks


sources_of = jax.jit(losses.sounding_sources, static_argnums=1)


@functools.partial(jax.jit, static_argnums=2)
def set_terms(prediction, batch, weights):
    return losses.set_terms(*prediction, batch, LossConfig(**dict(weights)))


def terms_of(prediction, batch, **weights):
    return {name: float(cost) for name, cost in set_terms(prediction, batch, tuple(weights.items())).items()}


FOUND = [(3, quarter(LEFT, LEFT)), (1, quarter(RIGHT, RIGHT))]


def test_each_class_that_sounds_is_one_source():
    # Class 3 sounds twice; a third of its kind, below left, is silent, and so is class 2.
    frame = picture((3, LEFT, LEFT, 1), (3, slice(0, 8), slice(12, 16), 1), (3, slice(12, 16), LEFT, 0),
                    (1, slice(8, 10), slice(8, 12), 1), (2, slice(10, 12), slice(8, 12), 0))  # fmt: skip
    sources = sources_of(batch_of(frame), 4)
    assert sources.classes[0, :2].tolist() == [1, 3]
    assert sources.present[0].tolist() == [True, True, False, False]
    assert sources.known.tolist() == [True, False, False]
    several = quarter(LEFT, LEFT) + quarter(LEFT, slice(12, 16))
    np.testing.assert_array_equal(sources.masks[0, 1], several)
    half = 0.5 * quarter(slice(8, 12), slice(8, 12))  # two of the four rows of a cell
    np.testing.assert_array_equal(sources.masks[0, 0], half)
    np.testing.assert_array_equal(sources.masks[0, 2:], np.zeros((2, 4, 4)))


def unknown(frame):
    """No pixel has a class."""
    return frame[0], np.full_like(frame[1], -1), frame[2]


def test_a_lone_class_needs_no_classes_of_pixels():
    alone = picture((3, LEFT, LEFT, 1))
    sources = sources_of(batch_of(unknown(alone)), 4)
    assert bool(sources.known[0])
    assert sources.present[0].tolist() == [True, False, False, False]
    assert int(sources.classes[0, 0]) == 3
    np.testing.assert_array_equal(sources.masks[0, 0], quarter(LEFT, LEFT))


@pytest.mark.parametrize(
    ("frame", "known"),
    {
        "two classes, told apart": (TWO, True),
        "two classes, not told apart": (unknown(TWO), False),
        "silence": (SILENT, True),
        "silence, classes of silent things unknown": (unknown(SILENT), True),
        "a class sounds, no mask of it": (unknown((0 * TWO[0], TWO[1], picture((3, LEFT, LEFT, 1))[2])), False),
        "a class sounds, hidden behind others": ((TWO[0], TWO[1], TWO[2] | np.eye(CLASSES, dtype=np.uint8)[0]), True),
        "pixels sound, of no class": ((TWO[0], TWO[1], 0 * TWO[2]), False),
    }.values(),
)
def test_a_frame_whose_sources_are_unknown_costs_nothing(frame, known):
    batch = batch_of(frame)
    assert bool(sources_of(batch, 4).known[0]) == known
    costs = terms_of(predicted([(4, quarter(LEFT, RIGHT))]), batch)
    assert (costs["query_class"] > 0) == known
    if not known:
        assert costs == {"query_class": 0.0, "query_mask": 0.0, "query_dice": 0.0}


def test_padded_frames_and_frames_of_too_many_sources_cost_nothing():
    batch = batch_of(TWO)
    assert sources_of(batch, 4).known.tolist() == [True, False, False]
    assert sources_of(batch, 1).known.tolist() == [False, False, False]  # one query cannot find both
    wrong = [(4, quarter(ALL, LEFT))]
    assert terms_of(predicted(FOUND, wrong), batch) == terms_of(predicted(FOUND), batch)


def test_a_perfect_prediction_costs_next_to_nothing():
    costs = terms_of(predicted(FOUND, []), batch_of(TWO, SILENT))
    assert all(0.0 <= cost < 1e-4 for cost in costs.values()), costs


def test_wrong_classes_missed_sources_and_invented_ones_cost():
    batch = batch_of(TWO, SILENT)
    perfect = terms_of(predicted(FOUND, []), batch)

    def extra(frame, other=()):
        costs = terms_of(predicted(frame, other), batch)
        return {name for name in costs if costs[name] > perfect[name] + 0.1}

    swapped = [(1, FOUND[0][1]), (3, FOUND[1][1])]
    assert extra(swapped) == {"query_class"}
    assert extra([(4, FOUND[0][1]), FOUND[1]]) == {"query_class"}
    assert extra([(3, quarter(LEFT, slice(4, 12))), FOUND[1]]) == {"query_mask", "query_dice"}
    assert extra([FOUND[0]]) == {"query_class", "query_mask", "query_dice"}
    assert extra(FOUND, [(2, quarter(LEFT, ALL))]) == {"query_class"}


def test_terms_by_hand():
    """One source, in a quarter of the picture. Query 1 is nearer and likelier than the three others: it is matched."""
    classes = np.zeros((1, FRAMES, 4, CLASSES + 1), np.float32)
    classes[0, 0, 1, 3] = math.log(5.0)
    masks = np.full((1, FRAMES, 4, 4, 4), -math.log(3.0), np.float32)  # p = 1/4
    masks[0, 0, 1, :2, :2] = 0.0  # 1/2 on the source
    costs = terms_of((classes, masks), batch_of(picture((3, LEFT, LEFT, 1))))
    # Class: query 1 at p = 5 / 10, the others at p(no object) = 1 / 6 with weight 0.1.
    assert costs["query_class"] == pytest.approx((math.log(2.0) + 0.3 * math.log(6.0)) / 1.3, rel=1e-5)
    assert costs["query_mask"] == pytest.approx((4 * math.log(2.0) - 12 * math.log(0.75)) / 16, rel=1e-5)
    # Dice: 1 - (2 * 4 / 2 + 1) / (4 / 2 + 12 / 4 + 4 + 1)
    assert costs["query_dice"] == pytest.approx(1 - 5 / 10, rel=1e-5)


def test_the_order_of_the_queries_changes_nothing():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(1, FRAMES, 4, CLASSES + 1)).astype(np.float32)
    masks = rng.normal(size=(1, FRAMES, 4, 4, 4)).astype(np.float32)
    batch = batch_of(TWO, SILENT, picture((0, ALL, LEFT, 1), (4, LEFT, RIGHT, 1), (2, RIGHT, RIGHT, 1)))
    before = terms_of((classes, masks), batch)
    order = np.stack([rng.permutation(4) for _ in range(3)])
    mixed = (np.take_along_axis(classes, order[None, ..., None], 2),
             np.take_along_axis(masks, order[None, ..., None, None], 2))  # fmt: skip
    assert terms_of(mixed, batch) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 4, 4), (7, 9, 3), (7, 5, 1)])
def test_the_matching_is_the_best_there_is(shape):
    rng = np.random.default_rng(0)
    cost = rng.normal(size=shape).astype(np.float32)
    present = rng.random((shape[0], shape[2])) < 0.7
    query = np.asarray(jax.jit(losses.match)(cost, present))
    for frame in range(shape[0]):
        assert len(set(query[frame])) == shape[2]
        here = np.flatnonzero(present[frame])
        rows, columns = linear_sum_assignment(cost[frame][:, here])
        assert dict(zip(here, query[frame][here], strict=True)) == dict(zip(here[columns], rows, strict=True))


def test_the_weights_decide_the_matching():
    """One query knows the class, the other the mask."""
    knows_class = (3, quarter(RIGHT, RIGHT))
    knows_mask = (0, quarter(LEFT, LEFT))
    batch, both = batch_of(picture((3, LEFT, LEFT, 1))), predicted([knows_class, knows_mask])
    by_class, by_mask = terms_of(both, batch, query_mask=0.0, query_dice=0.0), terms_of(both, batch)
    assert by_class["query_dice"] > 0.8 > 0.1 > by_mask["query_dice"]
    assert by_class["query_class"] < by_mask["query_class"]


def test_gradients_are_finite_in_silence_and_in_the_unknown():
    batch = batch_of(SILENT, unknown(TWO))
    extreme = predicted([], [(0, quarter(ALL, ALL))])
    gradient = jax.jit(jax.grad(lambda both: sum(losses.set_terms(*both, batch, LossConfig()).values())))
    for prediction in (extreme, jax.tree.map(np.zeros_like, extreme)):
        in_class, in_mask = map(np.asarray, gradient(prediction))
        assert np.isfinite(in_class).all()
        assert (in_mask == 0).all()
        assert (in_class[0, 1:] == 0).all()
    assert (in_class[0, 0, :, NOTHING] < 0).all()  # towards "no object" where nothing sounds


def test_a_prediction_that_is_no_number_ends_and_is_seen():
    classes, masks = predicted(FOUND)
    for query, value in (((1,), np.nan), ((3,), np.nan), ((), np.nan), ((), np.inf)):
        broken = masks.copy()
        broken[0, 0, *query] = value
        costs = terms_of((classes, broken), batch_of(TWO))
        assert not all(map(math.isfinite, costs.values()))
