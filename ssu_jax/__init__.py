"""ssu_jax: for every second of a video, a mask of the pixels that sound and a sentence about them."""

import importlib

__version__ = "0.1.0"

# Public names, each loaded on first use (PEP 562): importing the package loads not even jax.
_LAZY = {
    "Batch": "types",
    "Clip": "types",
    "Mixtures": "types",
    "Outputs": "types",
    "Prediction": "types",
    "TrainState": "types",
    "UserError": "types",
    "Config": "config",
    "SSUFormer": "models.ssuformer.ssuformer",
    "TVSL": "models.tvsl.tvsl",
    "Predictor": "inference.predictor",
    "Locator": "inference.locator",
}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
