"""Which published models can be converted. A table is imported when it is asked for."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ssu_jax.conversion.entry import Entry
from ssu_jax.types import UserError

KINDS = (
    "pvt_v2", "clip", "audioclip", "vggish", "yamnet", "mobilenet_v2", "deeplab_v3", "causal_lm", "fastestdet",
    "shufflenet_v2",
)  # fmt: skip

# What a published config.json calls itself -> kind.
_KIND_OF_ARCHITECTURE = {"MobileNetV2ForSemanticSegmentation": "deeplab_v3"}  # its model_type is the backbone's
_KIND_OF_MODEL_TYPE = {
    "pvt_v2": "pvt_v2",
    "clip": "clip",
    "clip_vision_model": "clip",
    "clip_text_model": "clip",
    "gpt2": "causal_lm",
    "llama": "causal_lm",
    "mobilenet_v2": "mobilenet_v2",
}
# Where no config.json lies with them: a tensor that one kind alone has -> kind, the first that is there.
_KIND_OF_TENSOR = {
    "layer1/conv/kernel": "yamnet",
    "logits/semantic/kernel": "deeplab_v3",
    "MobilenetV2/Conv/kernel": "mobilenet_v2",
    "audio.fbsp.fc": "audioclip",
}


def entry_of(kind: str) -> Entry:
    """The entry of a kind. Raises UserError for an unknown one."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of weights {kind!r}: wanted one of {', '.join(KINDS)}")
    return importlib.import_module(f"ssu_jax.conversion.tables.{kind}").ENTRY


def kind_in(config: Mapping[str, Any]) -> str | None:
    """The kind that a published config.json means, None where it says none that is known."""
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    model_type = config.get("model_type")
    for table, name in ((_KIND_OF_ARCHITECTURE, architecture), (_KIND_OF_MODEL_TYPE, model_type)):
        if isinstance(name, str) and name in table:
            return table[name]
    return None


def kind_among(names: Iterable[str]) -> str | None:
    """The kind whose tensors have these names, None where they tell of none.

    Only files of TFLite tell, and AudioCLIP's.
    """
    known = set(names)
    return next((kind for name, kind in _KIND_OF_TENSOR.items() if name in known), None)
