"""Checkpoints: saved, sealed, verified, and read back as a model. This package alone names Orbax.

* store.py: the checkpoints of a working directory
* seal.py: lists of files with sizes and checksums
* folder.py: a model as a folder to hand on (safetensors, config.json, tokenizer.json)
* pretrained.py: published weights after `ssu convert`
* loading.py: any of these -> configuration, tokenizer, weights
"""

from ssu_jax.checkpoint.folder import Model, write_folder
from ssu_jax.checkpoint.loading import load_model, locate, made_by, read_family, read_model, read_weights
from ssu_jax.checkpoint.pretrained import read_pretrained
from ssu_jax.checkpoint.store import CheckpointStore, read_state

__all__ = [
    "CheckpointStore",
    "Model",
    "load_model",
    "locate",
    "made_by",
    "read_family",
    "read_model",
    "read_pretrained",
    "read_state",
    "read_weights",
    "write_folder",
]
