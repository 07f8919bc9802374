"""Where published weights come from: this machine, the Hugging Face hub, or a URL with its sha256.

What exists here is always taken as it is, without a look at the network.
"""

import pathlib
import re
import urllib.parse
from typing import NamedTuple

from ssu_jax import files
from ssu_jax.types import UserError
from ssu_jax.weights import download

# What a conversion reads: configuration, weights, vocabulary.
_PATTERNS = ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
_SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
_TORCH = ["pytorch_model.bin"]
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class Found(NamedTuple):
    """place: folder or file on this machine. origin: where it is from, for the manifest."""

    place: pathlib.Path
    origin: str


def find(source: str, scratch: pathlib.Path, *, sha256: str | None = None, revision: str | None = None) -> Found:
    """The folder or file that SOURCE means; what is downloaded from a URL lands in `scratch`.

    sha256: hexadecimal digest of a single file, compared before the file is opened; needed for a URL. revision: branch,
    tag or commit of a hub id. Raises UserError: not there, not reachable, another digest.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UserError(f"--sha256 {sha256}: wanted 64 hexadecimal digits")
    is_url = re.match(r"https?://", source) is not None
    if revision is not None and (is_url or pathlib.Path(source).exists()):
        raise UserError(f"--revision {revision} goes with a hub id (org/name) alone, {source} is none: leave it out")
    if is_url:
        return Found(_download(source, scratch, sha256), download.without_secrets(source))
    place = pathlib.Path(source)
    if place.exists():
        if sha256 is not None:
            _check_digest(place, sha256, source)
        return Found(place, "")
    if not _HUB_ID.fullmatch(source):
        raise UserError(f"{source} does not exist: wanted a folder, a file, a hub id (org/name) or an http(s) URL")
    if sha256 is not None:
        raise UserError("--sha256 goes with one file, a hub id means several: leave it out, --revision names a commit")
    return _from_hub(source, revision)


def _from_hub(name: str, revision: str | None) -> Found:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(f"{name} is no folder here; for the hub: pip install ssu_jax[convert]") from error
    try:
        get = huggingface_hub.snapshot_download
        folder = pathlib.Path(get(name, revision=revision, allow_patterns=[*_PATTERNS, *_SAFETENSORS]))
        if not any(folder.glob("*.safetensors")):
            folder = pathlib.Path(get(name, revision=revision, allow_patterns=[*_PATTERNS, *_TORCH]))
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"{name} is no folder here, and as a hub id: {said or type(error).__name__}") from error
    return Found(folder, f"{name}@{folder.name}")


def _download(url: str, scratch: pathlib.Path, sha256: str | None) -> pathlib.Path:
    if sha256 is None:
        raise UserError(f"{url}: a URL needs --sha256, the digest that its publisher names: nothing was downloaded")
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
    path = files.resolve_inside(scratch, name)
    download.fetch(url, path, sha256)
    return path


def _check_digest(path: pathlib.Path, sha256: str, source: str) -> None:
    if not path.is_file():
        raise UserError(f"--sha256 goes with one file, {source} is a folder: leave it out")
    download.check_digest(path, sha256, source)
