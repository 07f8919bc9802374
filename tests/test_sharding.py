"""Where arrays lie, told without devices: `AbstractMesh` has sizes alone. Runs on devices: training/test_devices.py."""

import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from ssu_jax import models, sharding
from ssu_jax.config import Config, sizes
from ssu_jax.training.optimizer import make_optimizer
from ssu_jax.training.state import state_shapes
from ssu_jax.types import UserError


def mesh_of(*mesh_sizes: int) -> AbstractMesh:
    return AbstractMesh(mesh_sizes, sharding.AXES)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("text_decoder/experts_0/experts/expand_kernel", (8, 16, 64), ("expert", "fsdp", "tensor")),
        ("text_decoder/experts_0/experts/contract_kernel", (8, 64, 16), ("expert", "tensor", "fsdp")),
        ("text_decoder/experts_0/experts/contract_kernel", (7, 64, 16), (None, "tensor", "fsdp")),
        ("fusion/self_audio_0/Attention_0/query/kernel", (16, 32), ("fsdp", "tensor")),
        ("clip_text/block_0/attention/out/kernel", (32, 16), ("tensor", "fsdp")),
        ("visual_encoder/stage_1/block_0/mlp/depthwise/kernel", (3, 3, 1, 32), (None, None, None, "tensor")),
        ("text_decoder/embed/embedding", (50261, 512), (None, "fsdp")),
        ("stem/kernel", (3, 3, 8, 64), (None, None, None, "fsdp")),
        ("stem/kernel", (3, 3, 5, 7), ()),
        ("fusion/norm/scale", (512,), ()),
        ("step", (), ()),
    ],
)
def test_a_parameter_is_cut_by_its_name_then_along_its_largest_axis(name, shape, wanted):
    spec = sharding.spec_of(name, shape, mesh_of(2, 4, 2, 2))
    assert tuple(spec) == wanted + (None,) * (len(shape) - len(wanted))


def test_an_axis_of_one_device_cuts_nothing():
    spec = sharding.spec_of("x/experts/expand_kernel", (8, 16, 64), mesh_of(8, 1, 1, 1))
    assert all(axis is None for axis in spec)


@pytest.mark.full
def test_every_rule_names_a_parameter_of_some_model():
    """A layer that is given another name must not silently stay whole."""
    base, pyramid = sizes.base(), sizes.small()
    base.model.rcc, pyramid.model.language_model.kind = True, "llama"
    pyramid.model.language_model.variant, pyramid.model.vocab_size = "stories260k", 4096
    names = set()
    for config in (base, pyramid):
        shapes = jax.eval_shape(lambda config=config: models.init(models.build(config), config, jax.random.key(0)))
        names |= {"/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    used = {
        next((pattern for pattern, _ in sharding.RULES if sharding.fnmatch.fnmatchcase(name, pattern)), None)
        for name in names
    }
    assert used >= {pattern for pattern, _ in sharding.RULES}


def test_moments_and_averages_lie_as_their_parameters():
    config = sizes.tiny()
    config.model.moe.num_experts = 8
    state = state_shapes(models.build(config), config, make_optimizer(config.train))
    mesh = mesh_of(1, 2, 2, 2)

    def specs(tree) -> dict:
        leaves = jax.tree_util.tree_leaves_with_path(sharding.shardings_of(tree, mesh))
        return {sharding._name_of(path): tuple(leaf.spec) for path, leaf in leaves}

    adam = next(part for part in state.opt_state if hasattr(part, "mu"))
    assert specs(state.params) == specs(state.ema_params) == specs(adam.mu) == specs(adam.nu)
    cut = [axis for spec in specs(state.params).values() for axis in spec]
    assert {"fsdp", "expert", "tensor"} <= set(cut)
    assert specs({"step": state.step, "count": adam.count}) == {"step": (), "count": ()}


@pytest.mark.parametrize(
    ("asked", "devices", "wanted"),
    [((-1, 1, 1, 1), 8, (8, 1, 1, 1)), ((2, -1, 2, 1), 16, (2, 4, 2, 1)), ((2, 2, 1, 2), 8, (2, 2, 1, 2))],
)
def test_one_size_is_what_the_others_leave(asked, devices, wanted):
    assert sharding._filled(asked, devices) == wanted


@pytest.mark.parametrize("asked", [(3, 1, 1, 1), (-1, 3, 1, 1), (1, 1, 1, 1), (4, 4, 1, 1), (-1, 16, 1, 1)])
def test_sizes_that_do_not_make_the_devices_are_refused_in_one_line(asked):
    with pytest.raises(UserError, match="does not make 8 devices") as error:
        sharding._filled(asked, 8)
    assert "\n" not in str(error.value)


def test_slices_are_cut_along_data_alone():
    devices = [types.SimpleNamespace(slice_index=number // 4) for number in range(8)]
    with pytest.raises(UserError, match=r"mesh.data is 1, the devices lie in 2 slices: take a multiple of 2"):
        sharding.make_mesh((1, 8, 1, 1), devices)


def test_a_batch_must_go_up_in_the_devices_and_the_slices_of_the_gradient():
    sharding.check_batch_size(16, mesh_of(2, 2, 2, 1), 2)
    with pytest.raises(UserError, match=r"train.batch_size \(12\) must be a multiple of the 8 devices .* take 16"):
        sharding.check_batch_size(12, mesh_of(2, 2, 2, 1))
    with pytest.raises(UserError, match=r"grad_accumulation \(2\).* take 32"):
        sharding.check_batch_size(24, mesh_of(2, 2, 2, 1), 2)
    sharding.check_batch_size(2, mesh_of(2, 1, 1, 4))  # tensor does not split the batch


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fsdp": -1}, "at most one of data, fsdp, expert, tensor may be -1"),
        ({"tensor": 0}, "no axis may be 0"),
        ({"expert": 3}, r"mesh.expert \(3\) must divide model.moe.num_experts \(4\)"),
        ({"fsdp": -2}, "mesh.fsdp must be at least -1"),
    ],
)
def test_a_mesh_that_no_machine_has_is_refused(changes, told):
    config = Config()
    for name, size in changes.items():
        setattr(config.mesh, name, size)
    with pytest.raises(UserError, match=told):
        config.validate()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("embedding", [PartitionSpec(None, None), PartitionSpec(None, "fsdp")]),
        ("kernel", [PartitionSpec(None, "fsdp")]),
    ],
)
def test_the_gradient_of_a_table_is_summed_whole_before_it_is_cut(name, wanted):
    """Cut at once, a table whose rows do not divide would have the partitioner cut, and replicate, every token."""

    def loss(params):
        return jnp.sum(sharding.gathered(params)["words"][name] ** 2)

    mesh = AbstractMesh((1, 4, 1, 1), sharding.AXES, axis_types=sharding._AXIS_TYPES)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.make_jaxpr(jax.grad(loss))({"words": {name: jnp.zeros((7, 8))}}).jaxpr
    found = [step.params["sharding"].spec for step in program.eqns if step.primitive.name == "sharding_constraint"]
    assert found == wanted


def test_without_a_mesh_nothing_is_done():
    tree = {"a": jax.numpy.ones((3, 2))}
    assert sharding.current_mesh() is None
    assert sharding.gathered(tree) is tree
    assert sharding.batch_constrained(tree) is tree
    assert sharding.within(None, len) is len
    assert sharding.spread(len, None) is len
    assert sharding.shardings_of(tree, None) is None
    assert not sharding.is_cut(None)


def test_a_replicated_spec_is_the_same_however_it_is_written():
    sharding_of_vector = jax.sharding.NamedSharding(mesh_of(8, 1, 1, 1), PartitionSpec(None))
    assert not sharding.is_cut({"a": sharding_of_vector})


ROWS_OF_HOSTS = """
import json, jax, numpy as np
from ssu_jax import sharding
found = {}
for sizes in ((8, 1, 1, 1), (2, 2, 2, 1), (2, 1, 1, 4), (1, 2, 1, 4), (1, 1, 1, 8)):
    mesh = sharding.make_mesh(sizes)
    for hosts in (1, 2, 4, 8):
        groups = np.split(np.array(jax.devices()), hosts)
        found[f"{sizes} {hosts}"] = [sharding.rows_here(16, mesh, list(group)) for group in groups]
print(json.dumps(found))
"""


def test_hosts_hold_the_rows_of_their_devices_and_together_all():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", ROWS_OF_HOSTS]
    run = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, check=True, timeout=300)
    found = json.loads(run.stdout)
    for name, rows in found.items():
        assert sorted({row for host in rows for row in host}) == list(range(16)), name
    for mesh in ("(8, 1, 1, 1)", "(2, 2, 2, 1)"):  # the batch is cut 8 ways: no row twice
        assert found[f"{mesh} 4"] == [[*range(start, start + 4)] for start in (0, 4, 8, 12)]
    assert found["(2, 1, 1, 4) 4"] == [[*range(8)]] * 2 + [[*range(8, 16)]] * 2  # tensor crosses hosts
    assert found["(1, 1, 1, 8) 8"] == [[*range(16)]] * 8
    assert sharding.rows_here(3, None) == (0, 1, 2)
