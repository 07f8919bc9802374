"""Published weights by name: fetched once, converted, checked, mended; what `ssu weights` says of it."""

import concurrent.futures
import json
import os
import shutil
import stat

import numpy as np
import pytest

from ssu_jax import weights
from ssu_jax.checkpoint import read_pretrained
from ssu_jax.cli import main
from ssu_jax.conversion import getting
from ssu_jax.types import UserError
from ssu_jax.weights import download

for package in ("tflite", "urllib3"):
    pytest.importorskip(package)


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def given(tmp_path, small, root):
    """A folder that holds the published file."""
    (tmp_path / "given").mkdir()
    shutil.copy(root / "tests/fixtures/yamnet/weights.tflite", tmp_path / "given/small.tflite")
    return tmp_path / "given"


@pytest.fixture
def ssu(capsys):
    """Runs `ssu weights ARGUMENTS` -> (exit code, output, errors)."""

    def run(*arguments):
        code = main.main(["weights", *map(str, arguments), "--no-compile-cache"])
        return code, *capsys.readouterr()

    return run


def flip(path, place: int = 1000):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def test_a_download_is_converted_once(server, small, cache, ssu):
    line = small(f"{server.url}/small.tflite")
    assert getting.get("yamnet") == (cache / "yamnet", True)
    assert weights.folder_of("yamnet") == cache / "yamnet"
    assert names_in(cache) == {"yamnet"}
    tree, params = read_pretrained(cache / "yamnet", "yamnet")
    assert (tree["num_classes"], params["stem"]["kernel"].shape) == (11, (3, 3, 1, 2))
    source = json.loads((cache / "yamnet/manifest.json").read_bytes())["source"]
    assert source == {"origin": line.weights.url, "form": "tflite",
                      "files": {"small.tflite": [line.weights.num_bytes, line.weights.sha256]}}  # fmt: skip
    assert getting.get("yamnet") == (cache / "yamnet", False)
    assert server.asked == [None]
    assert ssu("get", "yamnet")[:2] == (0, f"yamnet: there already, every digest right: {cache / 'yamnet'}\n")


def test_a_download_of_something_else_leaves_nothing(server, small, cache):
    small(f"{server.url}/small.tflite")
    server.content = server.content[:-1] + b"x"
    with pytest.raises(UserError, match="is not the file wanted: its sha256 is"):
        getting.get("yamnet")
    server.content += b"more"
    with pytest.raises(UserError, match="it is larger than"):
        getting.get("yamnet")
    assert names_in(cache) == set()


def test_without_a_network_one_line_says_what_to_do(small, cache, ssu, monkeypatch):
    monkeypatch.setattr(download, "_NUM_RETRIES", 0)
    code, out, err = ssu("get", "yamnet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "http://127.0.0.1:9/small.tflite cannot be downloaded" in err
    assert err.rstrip().endswith(
        "on a machine without internet: put small.tflite from http://127.0.0.1:9/small.tflite into a folder DIR "
        "and say --weights-dir DIR"
    )
    assert names_in(cache) == set()


def test_from_a_folder_nothing_is_downloaded(given, cache, ssu):
    code, out, err = ssu("get", "yamnet", "--weights-dir", given)
    assert (code, out, err) == (0, f"yamnet: converted into {cache / 'yamnet'}\n", "")
    flip(given / "small.tflite")
    with pytest.raises(UserError, match=r"small\.tflite is not the file wanted"):
        getting.ready(["yamnet"], given)
    shutil.rmtree(cache)
    code, _, err = ssu("get", "yamnet", "--weights-dir", given)
    assert (code, "small.tflite is not the file wanted" in err) == (2, True)
    code, _, err = ssu("get", "deeplab_v3", "--weights-dir", given)
    assert (code, "holds no weights of deeplab_v3: put deeplabv3_mnv2_pascal_quant.tflite from https" in err) == (
        2,
        True,
    )
    code, _, err = ssu("get", "yamnet", "--weights-dir", given / "none")
    assert (code, "none is no folder" in err, err.count("\n")) == (2, True, 1)
    assert names_in(cache) == set()


def test_a_wrong_name_is_said_before_anything_is_done(small, cache, ssu):
    code, out, err = ssu("get", "yamnet", "yamnett")
    assert (code, out, "no published weights are called 'yamnett'" in err) == (2, "", True)
    assert ssu("get")[0] == ssu()[0] == 2
    assert not cache.exists()


def test_one_wrong_byte_is_found_named_and_mended(given, cache, ssu):
    ssu("get", "yamnet", "--weights-dir", given)
    assert ssu("verify") == (0, "", "1 checked, no faults\n")
    for name in ("model.safetensors", "config.json"):
        flip(cache / "yamnet" / name)
        code, out, err = ssu("verify")
        assert (code, out.count("\n"), err) == (1, 1, "1 checked, 1 faults\n")
        assert f"{cache / 'yamnet' / name} is " in out
        assert out.endswith("mend: ssu weights get yamnet\n")
        assert ssu("get", "yamnet", "--weights-dir", given)[0] == 0
        assert ssu("verify")[0] == 0
        assert names_in(cache) == {"yamnet"}
    flip(given / "small.tflite")
    code, out, _ = ssu("verify", "--weights-dir", given)
    assert (code, f"{given / 'small.tflite'} is not the file wanted" in out, "copy it anew" in out) == (1, True, True)


@pytest.mark.parametrize("change", ["source", "no source", "no manifest"])
def test_a_folder_of_other_weights_is_no_published_one(given, cache, ssu, change):
    getting.get("yamnet", given)
    path = cache / "yamnet/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["source"] = {"files": {"other.tflite": [1, "0" * 64]}} if change == "source" else None
    path.write_text(json.dumps(manifest))
    if change == "no manifest":
        path.unlink()
    assert ssu("verify")[0] == 1
    assert getting.get("yamnet", given).is_new
    assert ssu("verify")[0] == 0


def test_several_at_once_do_not_break_each_other(given, cache):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: getting.get("yamnet", given).folder, range(4)))
    assert set(found) == {cache / "yamnet"}
    assert names_in(cache) == {"yamnet"}
    assert getting.faults("yamnet", cache / "yamnet") == ""


def test_list_says_where_everything_is(given, cache, ssu):
    code, out, err = ssu("list")
    assert (code, err) == (0, f"cache: {cache}\n")
    lines = out.splitlines()
    assert len(lines) == 2 * len(weights.NAMES)
    assert [line.split()[0] for line in lines[::2]] == list(weights.NAMES)
    assert all(line.endswith("not here") for line in lines[::2])
    assert all(word in lines[2] for word in ("deeplab_v3", "2.2 MB", "Apache-2.0"))
    assert f"{given} (published: small.tflite)" in ssu("list", "--weights-dir", given)[1]
    getting.get("yamnet", given)
    assert ssu("list")[1].splitlines()[0].endswith(str(cache / "yamnet"))


# What `ssu predict` asks for


def test_ready_takes_converted_folders_published_files_and_the_cache(given, cache, tmp_path):
    with pytest.raises(UserError, match="no weights of yamnet are here: `ssu weights get yamnet`, or put small.tflite"):
        getting.ready(["yamnet"])
    assert getting.ready(["yamnet"], given) == {"yamnet": cache / "yamnet"}
    before = (cache / "yamnet/manifest.json").stat().st_mtime_ns
    assert getting.ready(["yamnet"], given) == getting.ready(["yamnet"]) == {"yamnet": cache / "yamnet"}
    assert (cache / "yamnet/manifest.json").stat().st_mtime_ns == before
    shutil.copytree(cache / "yamnet", tmp_path / "converted/yamnet")
    assert getting.ready(["yamnet"], tmp_path / "converted") == {"yamnet": tmp_path / "converted/yamnet"}
    assert getting.get("yamnet", tmp_path / "converted") == (tmp_path / "converted/yamnet", False)
    (tmp_path / "empty").mkdir()
    assert getting.ready(["yamnet"], tmp_path / "empty") == {"yamnet": cache / "yamnet"}
    with pytest.raises(UserError, match="nowhere is no folder"):
        getting.ready(["yamnet"], tmp_path / "nowhere")


def test_a_cache_that_cannot_be_written_is_done_without(given, cache, monkeypatch, tmp_path):
    cache.parent.joinpath("file").write_text("")
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "file/cache"))  # below a file no folder can be made
    folder = getting.ready(["yamnet"], given)["yamnet"]
    assert tmp_path not in folder.parents
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert getting.ready(["yamnet"], given)["yamnet"] == folder
    _, params = read_pretrained(folder, "yamnet")
    assert np.isfinite(params["classifier"]["kernel"]).all()
    code = main.main(["weights", "get", "yamnet", "--weights-dir", str(given), "--no-compile-cache"])
    assert code == 2  # here the cache is what was asked for


def test_stories_come_with_their_words(shared, cache):
    folder = getting.ready(["stories260k"], shared / "data/weights/text")["stories260k"]
    assert getting.faults("stories260k", folder) == ""
    assert read_pretrained(folder, "causal_lm")[0]["vocab_size"] == 512
    assert os.path.getsize(folder / "tokenizer.json") > 1000
