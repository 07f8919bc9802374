"""`ssu convert` from end to end, and where it takes weights from: folders, files, the hub's cache, URLs."""

import hashlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import safetensors.numpy

from ssu_jax.checkpoint import read_pretrained
from ssu_jax.cli import main
from ssu_jax.weights import download

GPT2 = pathlib.Path(__file__).parents[1] / "fixtures/causal_lm/gpt2"


@pytest.fixture
def ssu(tmp_path, monkeypatch, capsys):
    """Runs `ssu convert ARGUMENTS` in an empty folder -> (exit code, output, errors); no half-made folder is left."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main.main(["convert", "--no-compile-cache", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        return code, out, err

    return run


def test_there_and_back(ssu, tmp_path):
    code, out, err = ssu(GPT2, "--out", "ours")
    config, params = read_pretrained(tmp_path / "ours", "causal_lm")
    digest = hashlib.sha256((tmp_path / "ours/model.safetensors").read_bytes()).hexdigest()
    assert (code, err) == (0, "")
    assert out.startswith("causal_lm: 28 tensors, 6,304 parameters, 0.0 MB, sha256 " + digest)
    assert out.endswith("written to ours\n")
    assert (config["layout"], config["width"]) == ("gpt2", 16)
    assert ssu("ours", "--back", "--out", "back")[0] == 0
    published, back = (safetensors.numpy.load_file(place / "model.safetensors") for place in (GPT2, tmp_path / "back"))
    assert all(np.array_equal(published[name], array) for name, array in back.items())
    assert ssu("back", "--out", "again", "--dtype", "bfloat16")[0] == 0
    assert np.allclose(read_pretrained(tmp_path / "again")[1]["norm"]["scale"], params["norm"]["scale"], rtol=1e-2)
    manifest = json.loads((tmp_path / "ours/manifest.json").read_bytes())
    assert manifest["source"]["origin"] == "gpt2"
    assert set(manifest["source"]["files"]) == {"model.safetensors", "config.json"}


def test_llama2c_with_its_vocabulary(ssu, shared, tmp_path):
    text = shared / "data/weights/text"
    code, out, _ = ssu(text / "stories260K.bin", "--tokenizer", text / "tok512.bin", "--out", "stories")
    assert code == 0
    assert "causal_lm: 47 tensors, 260,032 parameters" in out
    assert read_pretrained(tmp_path / "stories", "causal_lm")[0]["rope_layout"] == "interleaved"
    assert (tmp_path / "stories/tokenizer.json").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([GPT2], "--out is missing"),
        (["none", "--out", "x"], "none does not exist: wanted a folder, a file, a hub id (org/name) or an http(s) URL"),
        ([GPT2, "--out", "x", "--kind", "gpt"], "unknown kind of weights 'gpt': wanted one of pvt_v2, clip"),
        ([GPT2, "--out", "x", "--kind", "clip"], "clip: no tensor of vision_model. or text_model."),
        ([GPT2, "--out", "x", "--sha256", "ab"], "--sha256 ab: wanted 64 hexadecimal digits"),
        ([GPT2, "--out", "x", "--sha256", "0" * 64], "--sha256 goes with one file"),
        ([GPT2 / "model.safetensors", "--out", "x", "--sha256", "0" * 64], "is not the file wanted: its sha256 is"),
        ([GPT2, "--out", "x", "--revision", "main"], "--revision main goes with a hub id"),
        ([GPT2, "--out", "x", "--back", "--check"], "--check does not go with --back"),
        ([GPT2, "--out", "x", "--back"], "manifest.json is missing: wanted a folder that `ssu convert` wrote"),
        ([GPT2, "--out", "x", "--tokenizer", "none.json"], "--tokenizer none.json does not exist"),
        ([GPT2, "--out", "x", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["http://127.0.0.1:9/w.npz", "--out", "x"], "a URL needs --sha256"),
        (["org/name", "--out", "x", "--sha256", "0" * 64], "a hub id means several"),
    ],
)
def test_a_mistake_is_one_line(ssu, tmp_path, arguments, said):
    code, out, err = ssu(*arguments)
    assert code == 2
    assert said in err
    assert (err.count("\n"), out) == (1, "")
    assert not (tmp_path / "x").exists()


def test_every_tensor_that_does_not_fit_has_a_line(ssu, tmp_path):
    arrays = safetensors.numpy.load_file(GPT2 / "model.safetensors")
    del arrays["transformer.wpe.weight"]
    safetensors.numpy.save_file(arrays | {"extra": np.zeros(2)}, tmp_path / "model.safetensors")
    shutil.copy(GPT2 / "config.json", tmp_path)
    code, _, err = ssu("model.safetensors", "--out", "x")
    assert code == 2
    first, second, last = err.splitlines()
    assert (first, second) == ("  extra (2,): no rule knows it", "  position/embedding (20, 16): nothing fills it")
    assert last.endswith("2 tensors do not fit, listed above")


def test_weights_without_a_configuration_need_a_kind(ssu, tmp_path):
    shutil.copy(GPT2 / "model.safetensors", tmp_path / "w.safetensors")
    code, _, err = ssu("w.safetensors", "--out", "x")
    assert (code, "it has no config.json: say --kind, one of pvt_v2" in err) == (2, True)
    assert ssu("w.safetensors", "--out", "x", "--published-config", GPT2 / "config.json")[0] == 0


def test_nothing_to_check_against_is_said(ssu, tmp_path):
    fixture = GPT2.parents[1] / "vggish/model.safetensors"
    code, out, err = ssu(fixture, "--kind", "vggish", "--check", "--out", "x")
    assert code == 2
    assert "no published implementation to check vggish against" in err
    assert (tmp_path / "x/model.safetensors").exists()
    assert "written to x" in out


@pytest.mark.full
def test_check_prints_the_difference_of_every_feature(ssu, tmp_path, monkeypatch):
    code, out, _ = ssu(GPT2, "--check")
    assert code == 0
    lines = dict(line.split() for line in out.splitlines()[2:])
    assert {"embedding", "block_0", "block_1", "hidden", "logits"} <= set(lines)
    assert max(map(float, lines.values())) <= 2e-5
    assert list(tmp_path.iterdir()) == []
    code, out, _ = ssu(GPT2, "--check", "--dtype", "bfloat16")  # rounded numbers are not the published ones
    assert code == 1
    assert "too large" in out


@pytest.mark.full
def test_check_is_silent_about_a_classifier_that_no_feature_needs(ssu, tmp_path):
    shutil.copytree(GPT2.parents[1] / "pvt_v2/plain", tmp_path / "pvt")
    arrays = safetensors.numpy.load_file(tmp_path / "pvt/model.safetensors")
    head = {"classifier.weight": np.zeros((3, 16), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(arrays | head, tmp_path / "pvt/model.safetensors", metadata={"format": "pt"})
    code, out, err = ssu("pvt", "--check")
    assert (code, err) == (0, "")
    assert "(2 that it has no use for left out)" in out


# The network: a server on this machine, and the hub's cache.


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`; the first answers may fail or break off."""

    content, faults, asked = b"", [], []

    def do_GET(self):
        type(self).asked.append(self.headers.get("Range"))
        fault = type(self).faults.pop(0) if type(self).faults else ""
        if fault == "busy" or self.path == "/none.npz":
            self.send_error(503 if fault else 404)
            return
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1][:-1])
        part = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 3] if fault == "break" else part)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Handler.content = (GPT2 / "model.safetensors").read_bytes()
        Handler.faults, Handler.asked = [], []
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.mark.parametrize("faults", [[], ["busy"], ["break", "break"]])
def test_a_url_with_its_digest(ssu, server, tmp_path, monkeypatch, faults):
    pytest.importorskip("urllib3")
    monkeypatch.setattr(download, "_PIECE_BYTES", 1024)
    Handler.faults = list(faults)
    digest = hashlib.sha256(Handler.content).hexdigest()
    url = f"{server}/model.safetensors"
    code, out, err = ssu(f"{url}?token=secret", "--sha256", digest.upper(), "--published-config", GPT2 / "config.json",
                         "--out", "x")  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "x/manifest.json").read_bytes())["source"]["origin"] == url
    assert len(Handler.asked) == len(faults) + 1
    if faults == ["break", "break"]:  # taken up where it broke
        first = len(Handler.content) // 3 // 1024 * 1024
        second = first + (len(Handler.content) - first) // 3 // 1024 * 1024
        assert Handler.asked == [None, f"bytes={first}-", f"bytes={second}-"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "is not the file wanted: its sha256 is"),
        ("none.npz", "the server answers 404"),
        ("", "refused the name"),
        ("..%2f..%2fx.npz", "refused the name"),
    ],
)
def test_a_url_that_gives_something_else(ssu, server, tmp_path, name, said):
    pytest.importorskip("urllib3")
    code, _, err = ssu(f"{server}/{name}", "--sha256", "0" * 64, "--kind", "clip", "--out", "x")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(ssu, monkeypatch):
    pytest.importorskip("urllib3")
    monkeypatch.setattr(download, "_NUM_RETRIES", 1)
    code, _, err = ssu("http://127.0.0.1:9/w.npz", "--sha256", "0" * 64, "--kind", "clip", "--out", "x")
    assert (code, "cannot be downloaded" in err) == (2, True)


@pytest.fixture
def hub_cache(tmp_path):
    """A hub cache that holds gpt2 as "org/tiny" at the commit c0ffee, in its layout of links to blobs."""
    commit = "c0ffee" + "0" * 34
    repository = tmp_path / "hf/hub/models--org--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    (repository / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GPT2 / name, repository / "blobs" / name[:3])
        (snapshot / name).symlink_to(f"../../blobs/{name[:3]}")
    return tmp_path / "hf", commit


def test_a_hub_id_from_the_cache_without_network(hub_cache, tmp_path):
    cache, commit = hub_cache
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    run = lambda name: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "ssu_jax.cli.main", "convert", name, "--out", str(tmp_path / "x")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    missing = run("org/absent")
    assert missing.returncode == 2
    assert "org/absent is no folder here, and as a hub id: " in missing.stderr
    assert missing.stderr.count("\n") == 1
    found = run("org/tiny")
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "x/manifest.json").read_bytes())["source"]["origin"] == f"org/tiny@{commit}"
    assert read_pretrained(tmp_path / "x", "causal_lm")[0]["depth"] == 2
