"""Published weights by name: which there are, where they lie on this machine, how a file is fetched. No JAX here."""

from ssu_jax.weights.places import cache_folder, folder_of
from ssu_jax.weights.table import NAMES, PublicFile, Published, published

__all__ = ["NAMES", "PublicFile", "Published", "cache_folder", "folder_of", "published"]
