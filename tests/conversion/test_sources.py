"""Files of published weights: read as they are, tensor by tensor; damaged and hostile ones refused with a reason."""

import io
import json
import os
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from files_of_weights import floats, safetensors_bytes

from ssu_jax.conversion import safetensors_files, sources
from ssu_jax.types import UserError

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5, -2.25, np.inf], ml_dtypes.bfloat16),
    "half": np.array([[1.0], [2.0]], np.float16),
    "ids": np.arange(4),
    "nothing": np.zeros((0, 3), np.float32),
    "scalar": np.array(3.0, np.float32),
}


def refused(opened, path: pathlib.Path, said: str):
    """Opening the file or reading all of it ends in a UserError that names the file, in one line."""
    with pytest.raises(UserError, match=said) as error:
        [tensor.read() for tensor in opened(path).tensors.values()]
    assert "\n" not in str(error.value)
    assert path.name in str(error.value) or path.parent.name in str(error.value)


def same(source, arrays):
    assert source.shapes == {name: array.shape for name, array in arrays.items()}
    for name, tensor in source.tensors.items():
        read = tensor.read()
        assert (read.dtype, tensor.dtype) == (arrays[name].dtype, arrays[name].dtype)
        assert read.tobytes() == arrays[name].tobytes()


# safetensors


def test_safetensors_of_the_library_are_read_as_they_are(tmp_path, opened):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    source = opened(path)
    assert (source.form, source.config, source.files) == ("safetensors", {}, (path,))
    same(source, ARRAYS)


def test_what_is_written_here_the_library_reads(tmp_path):
    path = tmp_path / "model.safetensors"
    layout = {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}
    safetensors_files.write(path, layout, ARRAYS.__getitem__, {"format": "pt"})
    read = safetensors.numpy.load_file(path)
    assert {name: (array.dtype, array.tobytes()) for name, array in read.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in ARRAYS.items()
    }
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path):
    path = tmp_path / "model.safetensors"
    mixed = {"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.float64), "c": np.zeros(3, np.float16)}
    safetensors_files.write(path, {n: (a.shape, a.dtype) for n, a in mixed.items()}, mixed.__getitem__, {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert all((8 + length + header[n]["data_offsets"][0]) % a.itemsize == 0 for n, a in mixed.items())


def test_a_tensor_that_is_not_as_announced_is_no_silent_damage(tmp_path):
    with pytest.raises(ValueError, match="a: the header says"):
        safetensors_files.write(
            tmp_path / "x", {"a": ((2,), np.dtype(np.float32))}, lambda _: np.zeros(3, np.float32), {}
        )


SIX = np.arange(6, dtype=np.float32).tobytes()
DAMAGED = {
    "empty": (b"", "HeaderTooSmall|too small|is damaged"),
    "short": (b"\x01\x02", "is damaged"),
    "no header": (safetensors_bytes("", SIX), "is damaged"),
    "absurd length": (safetensors_bytes({"a": floats([6], 0, 24)}, SIX, length=1 << 62), "is damaged"),
    "length past the end": (safetensors_bytes({"a": floats([6], 0, 24)}, b"", length=4000), "is damaged"),
    "no JSON": (safetensors_bytes('{"a": ', SIX), "is damaged"),
    "nested without end": (safetensors_bytes("[" * 100_000), "is damaged"),
    "a list": (safetensors_bytes("[]"), "is damaged"),
    "overlapping": (safetensors_bytes({"a": floats([4], 0, 16), "b": floats([4], 8, 24)}, SIX), "is damaged"),
    "a gap": (safetensors_bytes({"a": floats([2], 0, 8), "b": floats([2], 16, 24)}, SIX), "is damaged"),
    "past the end": (safetensors_bytes({"a": floats([12], 0, 48)}, SIX), "is damaged"),
    "left over": (safetensors_bytes({"a": floats([4], 0, 16)}, SIX), "is damaged"),
    "size of another shape": (safetensors_bytes({"a": floats([7], 0, 24)}, SIX), "is damaged"),
    "negative": (safetensors_bytes({"a": floats([-6], 0, 24)}, SIX), "is damaged"),
    "backwards": (safetensors_bytes({"a": floats([6], 24, 0)}, SIX), "is damaged"),
    "overflow": (safetensors_bytes({"a": floats([1 << 62, 1 << 62], 0, 24)}, SIX), "is damaged"),
    "unknown type": (safetensors_bytes({"a": floats([6], 0, 24) | {"dtype": "Q99"}}, SIX), "is damaged"),
    "type without numbers": (safetensors_bytes({"a": floats([24], 0, 24) | {"dtype": "F8_E4M3"}}, SIX), "a is of type"),
    "a name twice": (
        safetensors_bytes('{"a": %s, "a": %s}' % ((json.dumps(floats([6], 0, 24)),) * 2), SIX),
        "'a' stands there twice",
    ),
    "a field twice": (
        safetensors_bytes('{"a": {"dtype":"F32","shape":[3],"shape":[6],"data_offsets":[0,24]}}', SIX),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_safetensors_file_is_refused(tmp_path, opened, name):
    content, said = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(opened, path, said)


def test_a_file_cut_anywhere_and_a_flipped_byte_of_the_header_never_pass_silently(tmp_path, opened):
    whole = safetensors.numpy.save({"a": ARRAYS["a.weight"], "b": ARRAYS["half"]})
    path = tmp_path / "model.safetensors"
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        refused(opened, path, "is damaged")
    header = 8 + int.from_bytes(whole[:8], "little")
    shapes = {"a": (2, 3), "b": (2, 1)}
    for position in range(0, header, 2):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        try:
            found = opened(path).shapes
        except UserError:
            continue
        # What still parses has another name or another shape, which the table refuses, or differs in blanks.
        assert found != shapes or whole[position : position + 1] == b" "


# shards


@pytest.fixture
def shards(tmp_path):
    """A folder of two shards and its index; gives the folder and a writer of another index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    parts = {"model-1.safetensors": ["a.weight", "b"], "model-2.safetensors": ["half", "ids", "nothing", "scalar"]}
    for name, tensors in parts.items():
        safetensors.numpy.save_file({tensor: ARRAYS[tensor] for tensor in tensors}, folder / name)
    map_of = {tensor: name for name, tensors in parts.items() for tensor in tensors}

    def write(changes: dict, tree: dict | None = None):
        (folder / sources.INDEX).write_text(json.dumps(tree or {"metadata": {}, "weight_map": map_of | changes}))
        return folder

    write({})
    return folder, write


def test_shards_are_one_set_of_tensors(shards, opened):
    source = opened(shards[0])
    same(source, ARRAYS)
    assert [path.name for path in source.files] == [sources.INDEX, "model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"b": "../../x"}, "refused the name '../../x'"),
        ({"b": "/etc/passwd"}, "refused the name"),
        ({"b": "model-3.safetensors"}, "names model-3.safetensors, which is missing"),
        ({"b": "model-2.safetensors"}, "does not hold what"),
        ({"more": "model-2.safetensors"}, "does not hold what .* says: more"),
        ({"b": 7}, "has no weight_map"),
    ],
)
def test_an_index_that_leads_out_or_lies(shards, opened, changes, said):
    with pytest.raises(UserError, match=said):
        opened(shards[1](changes))


@pytest.mark.parametrize("tree", [{"metadata": {}}, {"weight_map": ["a"]}, {"weight_map": {}, "x": [[]]}])
def test_an_index_without_tensors_gives_none(shards, opened, tree):
    folder = shards[1]({}, tree)
    if tree.get("weight_map") == {}:
        assert opened(folder).tensors == {}
    else:
        with pytest.raises(UserError, match="has no weight_map"):
            opened(folder)


def test_a_link_out_of_the_folder_is_followed_within_the_hub_s_cache_alone(shards, opened, tmp_path):
    folder, _ = shards
    hub = tmp_path / "models--org--name"
    (hub / "blobs").mkdir(parents=True)
    snapshot = hub / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(hub / "blobs" / str(number))
        (snapshot / path.name).symlink_to(os.path.relpath(hub / "blobs" / str(number), snapshot))
    same(opened(snapshot), ARRAYS)
    (folder / sources.INDEX).write_bytes((snapshot / sources.INDEX).read_bytes())
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (folder / name).symlink_to(snapshot / name)
    with pytest.raises(UserError, match="it leads out of"):
        opened(folder)


# npz


def test_npz_members_are_read_as_they_are(tmp_path, opened):
    arrays = {name: array for name, array in ARRAYS.items() if name != "b"}
    arrays["down/conv/kernel"] = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "w.npz", **arrays)
        source = opened(tmp_path / "w.npz")
        assert source.form == "npz"
        assert source.shapes == {name: array.shape for name, array in arrays.items()}
        assert all(np.array_equal(tensor.read(), arrays[name]) for name, tensor in source.tensors.items())


def test_npz_of_the_other_byte_order(tmp_path, opened):
    np.savez(tmp_path / "w.npz", a=np.arange(3, dtype=">f4"))
    tensor = opened(tmp_path / "w.npz").tensors["a"]
    assert (tensor.dtype, tensor.read().dtype, tensor.read().tolist()) == ("<f4", "<f4", [0, 1, 2])


class Marker:
    """Unpickling it makes a file."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_npz_with_objects_is_refused_and_nothing_runs(tmp_path, opened):
    marker = tmp_path / "marker"
    objects = np.empty(1, object)
    objects[0] = Marker(marker)
    np.savez(tmp_path / "w.npz", fine=np.zeros(2), evil=objects)
    refused(opened, tmp_path / "w.npz", "evil.npy holds pickled objects")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", pickle.dumps(Marker(marker)))
    refused(opened, tmp_path / "x.npz", "x.npz is damaged")
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Marker(marker)))
    refused(opened, tmp_path / "y.npz", "y.npz is damaged")
    assert not marker.exists()


def test_npz_cut_anywhere_or_flipped_is_refused(tmp_path, opened):
    path = tmp_path / "w.npz"
    np.savez(path, a=np.arange(300, dtype=np.float32), b=np.zeros((2, 2)))
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(opened, path, "is damaged")
    path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])  # one bit of a's numbers
    refused(opened, path, "is damaged or no .npz archive: Bad CRC-32")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.npy", (1 << 40,), 8)], "a.npy is damaged: .* bytes wanted"),
        ([("a.npy", (2,), 8), ("a.npy", (2,), 8)], "holds a name twice"),
        ([("a.npy", (2,), 9)], "a.npy is damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_whose_header_lies(tmp_path, opened, members, said):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape, num_bytes in members:
            stream = io.BytesIO()
            np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            archive.writestr(name, stream.getvalue() + b"\0" * num_bytes)
    refused(opened, path, said)
