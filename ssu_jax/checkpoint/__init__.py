"""Checkpoints: saved, sealed, verified, and read back as a model. This package alone names Orbax.

* store.py: the checkpoints of a working directory
* seal.py: lists of files with sizes and checksums
* folder.py: a model as a folder to hand on (safetensors, config.json, tokenizer.json)
* loading.py: any of these -> configuration, tokenizer, weights
"""

from ssu_jax.checkpoint.store import CheckpointStore, read_state

__all__ = ["CheckpointStore", "read_state"]
