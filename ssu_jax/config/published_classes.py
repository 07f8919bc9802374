"""Class names of published networks, in the order of their outputs. Facts, named by their source."""

import functools
import importlib.resources
import json

# PASCAL VOC 2012, as DeepLabV3's published networks number it.
VOC = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)


@functools.cache
def audioset() -> tuple[str, ...]:
    """YAMNet's 521 classes: display names of the AudioSet ontology (CC BY 4.0) in the order of YAMNet's class map."""
    text = importlib.resources.files("ssu_jax.config").joinpath("audioset_classes.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))
