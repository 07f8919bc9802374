"""The rows of the paper's tables as switches: named, applied to any configuration, told from one.

The ablation is cumulative: baseline, then focal, then MCM, then RCC, then MoHE, which is the whole model. Without
MoHE it is AVUFormer, the first published form (May 2025), so "rcc" and "avuformer" are the same switches.
"""

import difflib

from ssu_jax.config import Config
from ssu_jax.types import UserError

_ABLATION = ("focal", "mcm", "rcc", "mohe")
# Row -> the parts that are on.
ROWS = {
    "baseline": (),
    "focal": _ABLATION[:1],
    "mcm": _ABLATION[:2],
    "rcc": _ABLATION[:3],
    "avuformer": _ABLATION[:3],
    "mohe": _ABLATION,
    "ssu_s": (*_ABLATION, "seg_only"),
    "ssu_d": (*_ABLATION, "text_only"),
}
_ALONE = ("seg_only", "text_only")


def with_row(config: Config, row: str) -> Config:
    """Sets the switches of a row, in place, and returns the configuration; its name gains any row but the whole model.

    Raises UserError for a row that does not exist, naming the nearest.
    """
    if row not in ROWS:
        close = difflib.get_close_matches(str(row), ROWS, n=1, cutoff=0.0)
        raise UserError(f"no row {row!r} in the tables: did you mean {close[0]}? Rows are {', '.join(ROWS)}")
    for part in (*_ABLATION, *_ALONE):
        setattr(_section(config, part), part, part in ROWS[row])
    if row != "mohe":
        config.name = f"{config.name}:{row}"
    return config


def row_of(config: Config) -> str:
    """The row that a configuration's switches make, the first of two with the same; "" for a mixture no table has.

    A part without which another one does nothing counts for it too: RCC needs MCM.
    """
    on = {part for part in (*_ABLATION, *_ALONE) if getattr(_section(config, part), part)}
    if "mcm" not in on:
        on.discard("rcc")
    return next((row for row, parts in ROWS.items() if set(parts) == on), "")


def _section(config: Config, part: str):
    return config.losses if part == "focal" else config.model
