"""Our ArrayRecord files as a data set of TensorFlow Datasets: the same files, with its two descriptions beside them.

    builder = tfds.builder_from_directory(DIR)     # or ssu_jax.data.tfds.builder(DIR)
    builder.as_data_source(split="train")[0]["frames"]

No TensorFlow is needed to write or to read (`as_dataset` alone needs it). A record is one `tf.train.Example` either
way; an example has the features that records.py lists, with the frames as pictures: uint8 [y, x, 3] each. Masks stay
run lengths: `ssu_jax.data.run_lengths.decode` opens them.
"""

import importlib.util
import os
import pathlib

import numpy as np

from ssu_jax.data import array_record, records, shards, storage
from ssu_jax.types import UserError

NAME = "ssu_records"
_DTYPES = {int: np.int64, float: np.float32}


def describe(directory: str | os.PathLike) -> list[str]:
    """Writes dataset_info.json and features.json for the ArrayRecord splits of a directory; returns their names.

    Raises UserError if there are none, or if tensorflow-datasets is not installed.
    """
    tfds = _library()
    manifests = [shards.read_manifest(directory, split) for split in shards.splits_of(directory)]
    manifests = [manifest for manifest in manifests if manifest["shards"][0]["name"].endswith(array_record.SUFFIX)]
    if not manifests:
        raise UserError(f"{directory}: no split is in ArrayRecord files: `ssu data convert` makes them")
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME, version=f"{records.SCHEMA_VERSION}.0.0", data_dir=str(directory), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features(), description="Clips with what sounds in every second: masks, sentences."
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict([_split_info(tfds, directory, manifest) for manifest in manifests]))
    info.write_to_directory(str(directory))
    return [manifest["split"] for manifest in manifests]


def describe_where_installed(directory: str | os.PathLike, file_format: str) -> None:
    """Describes a local directory that has just got an ArrayRecord split, if tensorflow-datasets is there to do it."""
    is_local = not storage.is_remote(directory)
    if file_format == "array_record" and is_local and importlib.util.find_spec("tensorflow_datasets"):
        describe(directory)


def builder(directory: str | os.PathLike):
    """The `tfds.core.DatasetBuilder` of a directory that `describe` has described, for reading.

    Raises UserError if it has not, or if tensorflow-datasets is not installed.
    """
    tfds = _library()
    if not (pathlib.Path(directory) / "dataset_info.json").is_file():
        raise UserError(
            f"{directory}: not described for TensorFlow Datasets: `ssu data convert --to array_record` does it"
        )
    return tfds.builder_from_directory(str(directory))


def features():
    """The `tfds.features.FeaturesDict` of a record."""
    types = _library().features
    return types.FeaturesDict({name: _feature(types, name, *form) for name, form in records.SCHEMA.items()})


def _feature(types, name: str, kind: type, count: int | None):
    if name == records.PICTURES:
        return types.Sequence(types.Image(shape=(None, None, 3), encoding_format="jpeg"))
    if kind is bytes:
        return types.Text() if count == 1 else types.Sequence(types.Text())
    if count == 1:
        return types.Scalar(_DTYPES[kind])
    return types.Tensor(shape=(count,), dtype=_DTYPES[kind])


def _split_info(tfds, directory: str | os.PathLike, manifest: dict):
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(directory),
        template="{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        dataset_name=NAME,
        split=manifest["split"],
        filetype_suffix=array_record.SUFFIX.removeprefix("."),
    )
    return tfds.core.SplitInfo(
        name=manifest["split"],
        shard_lengths=[shard["num_records"] for shard in manifest["shards"]],
        num_bytes=sum(shard["num_bytes"] for shard in manifest["shards"]),
        filename_template=template,
    )


def _library():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError("TensorFlow Datasets is not installed: pip install 'ssu_jax[data]'") from error
    return tfds
