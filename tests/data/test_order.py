"""Which record stands at which position: nothing lost, nothing twice, whatever the hosts and wherever one begins."""

from fractions import Fraction

import numpy as np
import pytest

from ssu_jax.data import execution, order, shards
from ssu_jax.data.source import RecordSource
from ssu_jax.types import Batch

NUMBER, SHARDS, BATCH = 10_000, 64, 24


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("many")
    shards.write_shards(path, "train", (b"clip %d" % i for i in range(NUMBER)), SHARDS, facts={})
    return RecordSource(path, "train")


def read(source, hosts: int, steps: range) -> np.ndarray:
    """Clips [steps, BATCH] that all hosts read together, each its own rows."""
    numbers = order.Order(3, source.lengths)
    empty = Batch(*[None] * len(Batch._fields))

    def example(position: int) -> Batch:
        return empty._replace(record=int(source[numbers(position)].split()[1]))

    rows = np.arange(BATCH).reshape(hosts, -1).tolist()
    parts = [execution.Rows(example, BATCH, tuple(mine)) for mine in rows]
    mine = range(BATCH // hosts)
    return np.array([[part(step * len(mine) + place).record for part in parts for place in mine] for step in steps])


@pytest.mark.parametrize("hosts", [1, 2, 3, 8])
def test_every_clip_once_an_epoch_on_any_number_of_hosts(source, hosts):
    steps = range(-(-NUMBER // BATCH) + 20)
    seen = read(source, hosts, steps)
    np.testing.assert_array_equal(seen, read(source, 1, steps))
    assert sorted(seen.ravel()[:NUMBER]) == list(range(NUMBER))
    assert (seen.ravel()[NUMBER : NUMBER + 100] != seen.ravel()[:100]).any()  # the next epoch has another order


def test_a_run_goes_on_at_any_step_on_another_number_of_hosts(source):
    whole = read(source, 1, range(84))
    hosts = (1, 2, 3, 8)
    pieces = [read(source, hosts[step // 7 % 4], range(step, step + 7)) for step in range(0, 84, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("weights", [[1, 1], [1, 3], [7, 2, 1], [1, 1, 1, 1, 1], [999_999, 1], [1, 999_999]])
def test_turns_are_fair_and_count_themselves(weights):
    counts, total = [0] * len(weights), sum(weights)
    for position in range(2000):
        number, before = order.turn(position, weights)
        assert before == counts[number]
        counts[number] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - Fraction((position + 1) * weight, total)) < len(weights)


def test_weights_are_shares_in_any_unit_and_each_set_is_gone_through_whole():
    lengths = [5, 3]
    first = order.Order(0, lengths, (0.25, 0.75))
    numbers = [first(position) for position in range(40)]
    assert numbers == [order.Order(0, lengths, (1, 3))(position) for position in range(40)]
    ours, theirs = [n for n in numbers if n < 5], [n for n in numbers if n >= 5]
    assert (len(ours), len(theirs)) == (10, 30)
    assert all(sorted(ours[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5))
    assert all(sorted(theirs[i : i + 3]) == [5, 6, 7] for i in range(0, 30, 3))
    assert numbers != [order.Order(1, lengths, (1, 3))(position) for position in range(40)]
