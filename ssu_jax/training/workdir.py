"""The working directory of a run: whose it is, what it was started with, what ran it.

config.json      the whole configuration              tokenizer.json   learned from the training sentences, if read
clip_tokenizer.json   of CLIP's published weights, where the sentences pass through its text tower
versions.json    seed, digests of the records and of published weights, packages, Python, git commit
metrics.jsonl    tensorboard/    checkpoints/
"""

import fcntl
import json
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

from ssu_jax import files
from ssu_jax.checkpoint.folder import CLIP_TOKENIZER
from ssu_jax.config import Config
from ssu_jax.data import pipeline
from ssu_jax.types import UserError

CONFIG, TOKENIZER, RUN = "config.json", "tokenizer.json", "versions.json"
INIT_FROM = "train.init_from"
DATA_MANIFEST = 78  # exit code
# What may change between two parts of a run: it alters no weight. Folders of published weights (`*.weights`) and the
# earlier run (`train.init_from`) may move too: they are read at the start alone.
HARMLESS = frozenset({
    "name", "data.dir", "data.val_split", "data.num_workers", "data.verify_shards", "train.log_every_steps",
    "train.checkpoint_every_steps", "train.picture_every_steps", "train.max_skipped_in_row",
    "train.max_skipped_steps", "eval.every_steps", "eval.num_clips", "eval.batch_size",
    "train.stall_seconds", "train.long_stall_seconds", "train.peer_timeout_seconds",
    "mesh.data", "mesh.fsdp", "mesh.expert", "mesh.tensor", "tvsl.threshold",
})  # fmt: skip
_OWN = frozenset({"data.dir", "data.num_workers", "data.verify_shards"})  # may differ between processes
_LOCK = ".lock"
_PACKAGES = ("ssu_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")


class Workdir:
    """A context manager that makes the directory and holds its lock, so that two runs never share it.

    Of several processes of one run one owns it; for the others it writes nothing.
    """

    def __init__(self, path: str | pathlib.Path, is_owner: bool = True):
        self.path = pathlib.Path(path).absolute()
        self._is_owner = is_owner

    def __enter__(self) -> "Workdir":
        if not self._is_owner:
            return self
        files.make_folder(self.path)
        lock = self.path / _LOCK
        with files.writing(lock):
            self._lock = open(lock, "w")
        try:
            # A record lock belongs to this process alone: reader processes that outlive a kill do not hold it.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            message = f"--workdir {self.path}: another training is running there: wait for its end or take another"
            raise UserError(message) from error
        return self

    def __exit__(self, *_):
        if self._is_owner:
            self._lock.close()

    def check_shared(self) -> None:
        """Raises UserError where this process does not see what the owner has made."""
        if not (self.path / _LOCK).is_file():
            raise UserError(
                f"--workdir {self.path}: process 0 has made it, this process does not see it: take a directory on a "
                "file system that all processes share"
            )

    def write_start(self, companions: dict[str, str]) -> None:
        """Notes what this start runs with."""
        if self._is_owner:
            for name, text in companions.items():
                files.atomic_write(self.path / name, text)


def facts(config: Config, data_digest: str) -> dict[str, Any]:
    """What must be alike on all processes of a run: options, code, packages and records.

    Each may have the records elsewhere, and other reader processes.
    """
    options = {name: _kept(name, value) for name, value in _flat(config.to_dict()).items() if name not in _OWN}
    data = config.data
    has_split = pipeline.has_split(data.dir, data.val_split)
    val_digest = pipeline.open_source(data.dir, data.val_split, data).digest if has_split else ""
    known = {name: version for name, version in versions().items() if version}  # git may be absent, or slow
    return {**options, "data_digest": data_digest, "val_manifest_digest": val_digest, **known}


def companions(
    config: Config,
    tokenizer_json: str,
    manifest: dict[str, Any],
    published: dict[str, str],
    clip_tokenizer_json: str = "",
) -> dict[str, str]:
    """The texts that lie in the working directory and in every checkpoint, by file name.

    tokenizer_json: "" where the model has no words.  published: module -> sha256 of the published weights that it began
    with, and under INIT_FROM the step of an earlier run.
    """
    run = {
        "seed": config.train.seed,
        "data_digest": manifest["digest"],
        "data_source": manifest["source"],
        "published_weights": published,
        "versions": versions(),
    }
    words = {TOKENIZER: tokenizer_json, CLIP_TOKENIZER: clip_tokenizer_json}
    texts = {CONFIG: as_json(config.to_dict()), RUN: as_json(run)}
    return texts | {name: text for name, text in words.items() if text}


def check_same_run(checkpoint: pathlib.Path, now: Config, data_digest: str) -> None:
    """Raises UserError if going on from a checkpoint would not be the same run.

    Names the first option that changed and would change the weights, with both values (exit 2), or the two
    digests of the records (exit 78).
    """
    stored = Config.from_dict(json.loads((checkpoint / CONFIG).read_text()))
    before, after = _flat(stored.to_dict()), _flat(now.to_dict())
    for name in before:
        if name not in HARMLESS and _kept(name, before[name]) != _kept(name, after[name]):
            raise UserError(
                f"config: {name} is {after[name]!r}, the run in {checkpoint.parent.parent} was started with "
                f"{before[name]!r}: set it back, or take another --workdir"
            )
    trained_on = json.loads((checkpoint / RUN).read_text())["data_digest"]
    if trained_on != data_digest:
        raise UserError(
            f"data: the run was trained on records with digest {trained_on[:12]}, {now.data.dir} holds "
            f"{data_digest[:12]}: point --config.data.dir at the same records, or take another --workdir",
            DATA_MANIFEST,
        )


def published_weights(checkpoint: pathlib.Path) -> dict[str, str]:
    """Module -> sha256 of the published weights that the run of a sealed step began with."""
    return json.loads((checkpoint / RUN).read_text()).get("published_weights", {})


def replay_bundle(companions: dict[str, str], skipped: list[dict]) -> str:
    """What it takes to run skipped updates again: their steps and records, seed, data digest, configuration."""
    return as_json({"skipped": skipped, "config": json.loads(companions[CONFIG]), **json.loads(companions[RUN])})


def versions() -> dict[str, str]:
    """Versions of what computes, and the git commit of the code ("" outside a repository)."""
    found = {"python": platform.python_version(), "git_commit": git_commit()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    return found


def git_commit() -> str:
    """The commit of the checkout this code runs from, "-dirty" if files differ; "" if there is none."""
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def as_json(tree: Any) -> str:
    """Readable, the same text for the same tree."""
    return json.dumps(tree, indent=2, sort_keys=True) + "\n"


def _kept(name: str, value: Any) -> Any:
    """What must stay of an option: of a folder of published weights, or of an earlier run, whether there is one."""
    return bool(value) if name.endswith((".weights", ".init_from")) else value


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
