"""Which published models can be converted. A table is imported when it is asked for."""

import importlib

from ssu_jax.conversion.entry import Entry
from ssu_jax.types import UserError

KINDS = ("pvt_v2", "clip", "vggish", "yamnet", "mobilenet_v2", "deeplab_v3", "causal_lm", "fastestdet", "shufflenet_v2")

# What a published config.json calls itself -> kind.
KIND_OF_MODEL_TYPE = {
    "pvt_v2": "pvt_v2",
    "clip": "clip",
    "clip_vision_model": "clip",
    "clip_text_model": "clip",
    "gpt2": "causal_lm",
    "llama": "causal_lm",
}


def entry_of(kind: str) -> Entry:
    """The entry of a kind. Raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of weights {kind!r}: wanted one of {', '.join(KINDS)}")
    return importlib.import_module(f"ssu_jax.conversion.tables.{kind}").ENTRY
