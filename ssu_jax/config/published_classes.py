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
def vgg_ss() -> tuple[str, ...]:
    """VGG-SS's 221 labels in alphabetical order: names of VGGSound (CC BY 4.0), of those in vggss.json.

    Source: hche11/Localizing-Visual-Sounds-the-Hard-Way, metadata.
    """
    return _names("vgg_ss_classes.json")


@functools.cache
def audioset() -> tuple[str, ...]:
    """YAMNet's 521 classes: display names of the AudioSet ontology (CC BY 4.0) in the order of YAMNet's class map."""
    return _names("audioset_classes.json")


def _names(file: str) -> tuple[str, ...]:
    text = importlib.resources.files("ssu_jax.config").joinpath(file).read_text(encoding="utf-8")
    return tuple(json.loads(text))
