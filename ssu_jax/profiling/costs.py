"""FLOPs of a prediction and of a training step, a sample and a frame (rule: flops.py)."""

from typing import Any

from ssu_jax.flops import Flops, flops_of
from ssu_jax.profiling.programs import Program


def costs(program: Program) -> dict[str, Any]:
    """A JSON-able dictionary: FLOPs of one sample and one frame, by kind, and how loops were counted.

    `published` is matmuls and convolutions alone, 2 a multiply-add: what papers print.
    """
    flops = flops_of(program.function, *program.shapes)
    share = Flops(
        round(flops.total / program.batch_size),
        {kind: round(count / program.batch_size) for kind, count in flops.by_kind.items()},
        *flops[2:],
    )
    return {
        "frames": program.frames,
        "per_sample": share.total,
        "per_frame": round(share.total / program.frames),
        "published_per_sample": share.published,
        "published_per_frame": round(share.published / program.frames),
        "by_kind": share.by_kind,
        "loops_at_bound": share.loops_at_bound,
        "loops_counted_once": share.loops_counted_once,
        "uncounted": list(share.uncounted),
    }
