"""JAX's persistent compile cache: a program compiled once is not compiled again by the next run."""

import hashlib
import os
import pathlib
import platform
import sys

from ssu_jax import files


def enable() -> pathlib.Path:
    """Turns the cache on for this process and returns its folder; variables the user has set are kept.

    Works by environment variables, which JAX reads when it is imported, so that it is not imported here;
    where JAX is loaded already, by its configuration.
    """
    folder = pathlib.Path(os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_default_folder())))
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _default_folder() -> pathlib.Path:
    """One folder a kind of processor: home directories are shared between machines, machine code is not."""
    return files.cache_folder() / f"compiled-{platform.machine()}-{_processor_digest()}"


def _processor_digest() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "".join(lines[:1]))
    return hashlib.sha256(features.encode()).hexdigest()[:8]
