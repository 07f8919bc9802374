"""What a pod would do: the judgement by hand, and real programs for forced devices and, with libtpu, for TPUs."""

import importlib.util
import json

import pytest

from ssu_jax.cli import main
from ssu_jax.profiling import check_table, compile_check, topology
from ssu_jax.profiling.topology import GIB
from ssu_jax.types import UserError

TINY = """
from ssu_jax.config import sizes

def get_config():
    config = sizes.tiny()
    config.train.batch_size = 16
    config.model.seg_only = True
    return config
"""


def result(peak: float, compiler_limit: float | None = None) -> dict:
    """A step whose state takes 2 GiB and gradients 1 GiB, at 64 clips cut into 8."""
    found = {"peak": round(peak * GIB), "state": 2 * GIB, "gradients": GIB, "batch_size": 64, "batch_multiple": 8}
    return found | ({"compiler_limit": round(compiler_limit * GIB)} if compiler_limit else {})


def test_what_fits_and_what_would():
    assert compile_check.judged(result(9), 16 * GIB)["fits"]
    over = compile_check.judged(result(19), 11 * GIB)
    # 3 GiB stay, 16 go with the batch: of the 8 left for them half the batch takes all.
    assert (over["fits"], over["over"], over["largest_batch"]) == (False, 8 * GIB, 32)
    assert compile_check.judged(result(19), 11 * GIB - 1)["largest_batch"] == 24  # a multiple of 8
    assert compile_check.judged(result(19), 2 * GIB)["largest_batch"] == 0


def test_the_compiler_s_own_limit_counts_where_it_is_lower():
    judged = compile_check.judged(result(15.9, compiler_limit=15.75), 16 * GIB)
    assert not judged["fits"]
    assert judged["memory"] == 15.75 * GIB


@pytest.mark.parametrize(
    ("told", "needs", "has"),
    [
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory in hbm. Used 36.53G of 15.75G hbm. "
         "Exceeded hbm capacity by 20.78G.", 36.53, 15.75),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (33.54G) exceeds "
         "available HBM (15.75G).", 33.54 + 2, 15.75),
    ],
    ids=["all", "temporaries"],
)  # fmt: skip
def test_the_compiler_s_words_are_understood(told, needs, has):
    found = compile_check.refusal(told, inputs=2 * GIB)
    assert found["peak"] == pytest.approx(needs * GIB)
    assert found["compiler_limit"] == pytest.approx(has * GIB)


def test_another_error_of_the_compiler_is_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="INTERNAL: no such thing"):
        compile_check.refusal("INTERNAL: no such\nthing", 0)


def test_without_a_limit_everything_fits():
    judged = compile_check.judged(result(500), None)
    assert judged["fits"]
    assert "no memory of a chip was stated" in check_table.verdict(judged)


def test_the_verdict_says_by_how_much_and_what_would_fit():
    judged = compile_check.judged(result(19), 11 * GIB)
    assert check_table.verdict(judged) == (
        "does not fit: 19.00 GiB of 11.00 GiB a chip, 8.00 GiB too much; a batch of about 32 would"
    )
    judged["searched"] = {"batch_size": 24, "peak": 10 * GIB, "tried": [32, 24]}
    assert check_table.verdict(judged).endswith("; compiled with 24: 10.00 GiB, fits")


@pytest.mark.parametrize("text", ["v5e", "v5e:16", "v5p:4x8", "h100:8", "p100:1x8", "cpu:2x4", "cpu:-1", "v5e:4x4 "])
def test_a_topology_that_means_nothing_is_refused(text):
    with pytest.raises(UserError, match="wanted cpu:N, or v4, v5e, v5p, v6e"):
        topology.parse(text)


def test_topologies_are_read():
    assert topology.parse("v5p:4x8x8", 2)[:4] == ("v5p", (4, 8, 8), 2, 95 * GIB)
    assert topology.parse("v5p:4x8x8", 2).num_chips == 512
    assert topology.parse("cpu:8").memory is None
    assert topology.parse("h200:32x8")[:4] == ("h200", (32, 8), 1, 151_397_597_184)
    with pytest.raises(UserError, match="cpu has one slice"):
        topology.parse("cpu:8", 2)


def test_the_number_of_forced_devices_replaces_one_that_is_set():
    flags = {"XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=4"}
    made = topology.environment(topology.parse("cpu:8"), flags)["XLA_FLAGS"].split()
    assert made == ["--a=1", "--xla_force_host_platform_device_count=8"]


def test_without_the_tpu_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ssu_jax\[tpu\]'"):
        topology.require(topology.parse("v5e:4x4"))
    with pytest.raises(UserError, match=r"pip install 'ssu_jax\[cuda12\]'"):
        topology.require(topology.parse("h200:1x8"))
    topology.require(topology.parse("cpu:8"))


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(TINY)
    return str(path)


@pytest.mark.timeout(600)
def test_the_verb_compiles_for_forced_devices(config_file, tmp_path, capsys):
    command = ["compile-check", "--config", config_file, "--topology", "cpu:8", "--config.mesh.fsdp=4"]
    assert main.main([*command, "--json", str(tmp_path / "check.json")]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "check.json").read_text())
    assert said.splitlines()[-1].startswith("fits")
    assert found["mesh"] == {"data": 2, "fsdp": 4, "expert": 1, "tensor": 1}
    assert found["rematerializations"] == 0
    # Four bytes, four times (weights, average, two moments); most of it cut in four, vectors whole.
    whole = found["parameters"] * 16
    assert whole / 4 < found["state"] < whole / 2
    assert found["arguments"] > found["state"]
    assert found["peak"] >= found["arguments"] + found["temporaries"]
    assert found["foreseen"] > found["state"] + found["gradients"]
    # What is cut is gathered once, and the gradient comes back.
    assert found["collectives"]["all-gather"]["bytes"] > found["parameters"] * 4 * 0.5
    assert found["flops"]["chip"] * 8 <= found["flops"]["step"] < found["flops"]["chip"] * 8 + 8


def test_what_is_far_too_large_is_refused_before_it_is_compiled(config_file, tmp_path, capsys):
    command = ["compile-check", "--config", config_file, "--topology", "cpu:8", "--memory", "0.05"]
    code = main.main([*command, "--config.train.batch_size=8192", "--json", str(tmp_path / "check.json")])
    said, found = capsys.readouterr().out, json.loads((tmp_path / "check.json").read_text())
    assert code == 1
    assert found["refused_by"] == "shapes"
    assert "does not fit" in said.splitlines()[-1]
    assert "not compiled" in said
    # State, gradients and the weights themselves stay; the rest is in proportion to the batch.
    fixed = found["state"] + found["gradients"] + 4 * found["parameters"]
    would = fixed + (found["foreseen"] - fixed) * found["largest_batch"] / 8192
    assert 0 < would <= 0.05 * GIB < would + (found["foreseen"] - fixed) * 8 / 8192


def test_a_mesh_that_the_machine_cannot_have_is_the_user_s_mistake(config_file, capsys):
    command = ["compile-check", "--config", config_file, "--topology", "cpu:4", "--config.mesh.fsdp=3"]
    assert main.main(command) == 2
    assert "mesh data ? x fsdp 3 x expert 1 x tensor 1 does not make 4 devices" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_verb_compiles_for_a_tpu(config_file, tmp_path):
    pytest.importorskip("libtpu")
    path = tmp_path / "check.json"
    command = ["compile-check", "--config", config_file, "--topology", "v5e:2x2", "--config.mesh.fsdp=2"]
    assert main.main([*command, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["chips"] == 4
    assert found["memory"] == 16 * GIB
    assert found["rematerializations"] == 0
    assert found["collectives"]["all-gather"]["count"] > 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_verb_compiles_for_machines_with_gpus(config_file, tmp_path):
    pytest.importorskip("jax_cuda12_plugin")
    path = tmp_path / "check.json"
    command = ["compile-check", "--config", config_file, "--topology", "h200:2x4", "--config.mesh.fsdp=2"]
    assert main.main([*command, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["chips"] == 8
    assert found["mesh"]["data"] == 4
    assert found["rematerializations"] == 0
    assert found["peak"] > found["state"]
    assert found["collectives"]["all-gather"]["count"] > 0
