"""The table of public weights, the places where weights lie, and the download of one file."""

import hashlib
import pathlib
import re
import subprocess
import sys

import pytest

from ssu_jax import files, weights
from ssu_jax.conversion import catalogue
from ssu_jax.types import UserError
from ssu_jax.weights import download


def test_every_line_of_the_table_is_complete():
    assert weights.NAMES == ("yamnet", "deeplab_v3", "deeplab_v3_dm05", "mobilenet_v2", "stories260k", "audioclip")
    lines = [weights.published(name) for name in weights.NAMES]
    assert {line.kind for line in lines} <= set(catalogue.KINDS)
    every = [file for line in lines for file in line.files]
    assert len({file.sha256 for file in every}) == len({file.name for file in every}) == len(every) == 8
    for file in every:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.url.startswith("https://")
        assert file.url.endswith("/" + file.name)
        assert re.search(r"/[0-9a-f]{12,40}/", file.url), "a commit, not a branch that moves"
        assert files.resolve_inside("/", file.name) == pathlib.Path("/", file.name)
    assert weights.published("stories260k").num_bytes == 1056540 + 6227


def test_an_unknown_name_is_refused_with_those_that_there_are(cache):
    for ask in (weights.published, weights.folder_of):
        with pytest.raises(
            UserError, match="no published weights are called 'yamnett': wanted one of yamnet, deeplab_v3"
        ):
            ask("yamnett")


def test_the_table_names_the_files_that_were_looked_at(shared):
    listed = (shared / "data/SOURCES.md").read_text()
    for line in map(weights.published, weights.NAMES):
        for file in line.files:
            if line.name == "audioclip":  # half a gigabyte: its digest is that of the repository's LFS pointer
                continue
            (row,) = [row for row in listed.splitlines() if row.startswith(f"| {file.name} |")]
            assert f"| {file.num_bytes} |" in row
            assert row.endswith(f"| {file.sha256} |")
            if "huggingface" not in file.url:
                repository, commit, path = re.search(r"\| (\S+) @ (\w{12}): (\S+) \|", row).groups()
                assert f"/{repository}/" in file.url
                assert f"/{commit}" in file.url
                assert file.url.endswith(f"/{path}")
            (found,) = (shared / "data/weights").rglob(file.name)
            assert (found.stat().st_size, files.sha256_of(found)) == (file.num_bytes, file.sha256)


def test_the_cache_is_where_the_variables_say(tmp_path, monkeypatch):
    monkeypatch.delenv("SSU_WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert weights.cache_folder() == tmp_path / "me/.cache/ssu_jax/weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights.cache_folder() == tmp_path / "cache/ssu_jax/weights"
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "mine"))
    assert weights.cache_folder() == tmp_path / "mine"
    assert not list(tmp_path.iterdir())  # asking makes nothing


def test_a_home_that_is_none_is_said(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="no home directory for a cache: set XDG_CACHE_HOME"):
        files.cache_folder()


def test_a_folder_that_is_given_goes_before_the_cache(tmp_path, cache):
    assert weights.folder_of("yamnet") is None
    assert weights.folder_of("yamnet", tmp_path / "none") is None
    for place in (cache, tmp_path / "given"):
        (place / "yamnet").mkdir(parents=True)
        assert weights.folder_of("yamnet", place) != place / "yamnet"  # an empty folder is none
        (place / "yamnet/manifest.json").write_text("{}")
    assert weights.folder_of("yamnet") == cache / "yamnet"
    assert weights.folder_of("yamnet", tmp_path / "given") == tmp_path / "given/yamnet"
    assert weights.folder_of("yamnet", str(tmp_path)) == cache / "yamnet"
    assert weights.folder_of("deeplab_v3", tmp_path / "given") is None


def test_asking_for_weights_loads_no_jax():
    program = "import sys; from ssu_jax import weights; weights.folder_of('yamnet'); print('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


# One download


@pytest.fixture
def fetched(server, tmp_path):
    """Fetches what the server has -> the bytes; after a failure asserts that nothing is left."""
    path = tmp_path / "place/file"

    def fetch(sha256: str | None = None, num_bytes: int | None = None) -> bytes:
        digest = hashlib.sha256(server.content).hexdigest() if sha256 is None else sha256
        try:
            download.fetch(f"{server.url}/file", path, digest, num_bytes)
        except UserError:
            assert not list(path.parent.iterdir())
            raise
        return path.read_bytes()

    pytest.importorskip("urllib3")
    return fetch


def test_a_download_is_what_the_server_has(fetched, server):
    assert fetched(num_bytes=len(server.content)) == server.content
    assert server.asked == [None]


@pytest.mark.parametrize(("faults", "asked"), [(["break", "break"], 3), (["break", "whole"], 2)])
def test_a_connection_that_breaks_is_taken_up(fetched, server, monkeypatch, faults, asked):
    monkeypatch.setattr(download, "_PIECE_BYTES", 1024)
    server.faults = list(faults)
    assert fetched() == server.content
    assert len(server.asked) == asked
    starts = [int(range.removeprefix("bytes=").rstrip("-")) for range in server.asked[1:]]
    assert starts == sorted(starts)
    assert 0 < starts[0] < len(server.content)


def test_another_file_is_refused_and_not_kept(fetched, server):
    with pytest.raises(UserError, match=f"file is not the file wanted: its sha256 is .*, wanted {'0' * 64}"):
        fetched("0" * 64)
    with pytest.raises(UserError, match=f"it is larger than {len(server.content) - 1} bytes"):
        fetched(num_bytes=len(server.content) - 1)
    server.faults = ["gone"]
    with pytest.raises(UserError, match="the server answers 404"):
        fetched()


def test_a_server_that_always_breaks_is_given_up(fetched, server, monkeypatch):
    monkeypatch.setattr(download, "_NUM_RETRIES", 1)
    monkeypatch.setattr(download, "_PIECE_BYTES", 1024)
    server.faults = ["break"] * 9
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetched()
    assert len(server.asked) == 2


def test_the_usual_variables_name_a_proxy(server, tmp_path, monkeypatch):
    pytest.importorskip("urllib3")
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setenv("http_proxy", server.url.removeprefix("http://"))
    download.fetch("http://nowhere.invalid/file", tmp_path / "file", digest)  # the proxy alone can answer that
    assert (tmp_path / "file").read_bytes() == server.content
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    monkeypatch.setattr(download, "_NUM_RETRIES", 0)
    with pytest.raises(UserError, match=r"http://nowhere\.invalid/file cannot be downloaded"):
        download.fetch("http://nowhere.invalid/file", tmp_path / "file", digest)


def test_secrets_of_a_url_are_not_shown():
    assert download.without_secrets("https://me:pass@host/a/b?token=x#y") == "https://host/a/b"
