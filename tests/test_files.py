"""Files appear whole or not at all; hostile names stay out; digests are the known ones."""

import errno
import os
import pathlib

import pytest

from ssu_jax import files
from ssu_jax.types import UserError


def test_writes_bytes_and_text(tmp_path):
    files.atomic_write(tmp_path / "new" / "a.bin", b"\x00\x01")
    files.atomic_write(tmp_path / "new" / "a.txt", "ä\n")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä\n".encode()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.bin", "a.txt"]


def test_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("old")

    def write_half():
        with files.atomic_path(path) as temporary:
            assert temporary.suffix == ".mp4"
            assert temporary.name.startswith(".")
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "word"), [(errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_mendable_faults_become_one_line(tmp_path, monkeypatch, step, code, word):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(*{"open": (pathlib.Path, "write_bytes")}.get(step, (os, step)), fail)
    with pytest.raises(UserError, match=word) as caught:
        files.atomic_write(path, "new")
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_defect_stays_a_defect(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "bad block")))
    with pytest.raises(OSError, match="bad block"):
        files.atomic_write(tmp_path / "a", "x")


def test_a_file_where_a_folder_is_wanted(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.atomic_write(tmp_path / "a" / "b", "x")


GOOD = ["a", "a/b.png", "train-00000-of-00001.tfrecord", "été.wav", "a..b", "...a", "名前/x"]
BAD = [
    "", ".", "..", "...", "../x", "a/../../x", "a/..", "a//b", "a/", "/etc/passwd", "//host/x", "~root/x", "~",
    "C:\\x", "C:x", "a:b", "\\\\host\\share", "..\\x", "a\\b", "a\0b", "a\nb", "a\rb", "\x1b[2J", "a\x7f",
    "a\u202eb", "a\u200bb", "\ufeffa", "a\u2028b", "\ud800", "\u2024\u2024/x", "．．/x", "\uff0fetc/x", "C：x", "a＼b",
    ". ", " ..", "a/ /b", "x" * 256, "é" * 128, "a/" * 3000 + "a", "\ue000", "a\x85b",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_plain_names_resolve_below_the_root(tmp_path, name):
    assert files.resolve_inside(tmp_path, name) == tmp_path.resolve() / name


@pytest.mark.parametrize("name", BAD, ids=range(len(BAD)))
def test_hostile_names_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="refused the name") as caught:
        files.resolve_inside(tmp_path, name)
    assert str(caught.value).isascii() or str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 300


def test_links_that_lead_out_are_refused(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "inside")
    (root / "self").symlink_to(root)
    assert files.resolve_inside(root, "in/x") == root.resolve() / "inside" / "x"
    for name in ("out", "out/x", "in/../out/x", "self"):
        with pytest.raises(UserError):
            files.resolve_inside(root, name)


def test_digests_are_the_published_ones(tmp_path):
    # RFC 3720 B.4 for CRC-32C, FIPS 180-2 for SHA-256.
    assert files.crc32c_of(bytes(32)) == 0x8A9136AA
    assert files.crc32c_of(b"123456789") == 0xE3069283
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
