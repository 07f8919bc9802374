"""Which records the tools that look at them were asked for."""

from collections.abc import Sequence

from ssu_jax.data import records
from ssu_jax.types import UserError


def numbers_of(source: records.RecordSource, indices: Sequence[int], ids: Sequence[str]) -> list[int]:
    """Record numbers: `indices` after a check, then those of the clips called `ids`, for which labels are read in turn.

    Raises UserError for a number out of range and for an id that no clip of the split has.
    """
    count = len(source)
    for index in indices:
        if not 0 <= index < count:
            raise UserError(
                f"{source.directory}: the split {source.split!r} holds {count} clips, numbers 0 to {count - 1}: "
                f"there is no --index {index}"
            )
    wanted, found, first = set(ids), {}, ""
    for number in range(count if wanted else 0):
        clip_id = records.read(source, number, records.decode_labels).id
        first = first or clip_id
        if clip_id in wanted:
            found[clip_id] = number
            if len(found) == len(wanted):
                break
    missing = sorted(wanted - set(found))
    if missing:
        raise UserError(
            f"{source.directory}: none of the {count} clips of the split {source.split!r} has the --id {missing[0]!r}; "
            f"the first one is {first!r}"
        )
    return list(dict.fromkeys([*indices, *(found[clip_id] for clip_id in ids)]))
