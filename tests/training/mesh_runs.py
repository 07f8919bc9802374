"""The whole model, tiny, on meshes of forced CPU devices: one JSON line of what came out, for test_devices.py.

    python mesh_runs.py FAMILY FOLDER DATA,FSDP,EXPERT,TENSOR ...

Every mesh, `1,1,1,1` is one device, trains three steps from the same seed and describes three clips with the averaged
weights (pre-training measures them); the last one also goes on from the second step that the one before it has saved.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from ssu_jax import models, sharding
from ssu_jax.checkpoint import CheckpointStore, read_state
from ssu_jax.config import Config, sizes
from ssu_jax.models import decoding
from ssu_jax.models.pretraining import objective
from ssu_jax.models.tvsl import locating
from ssu_jax.profiling.programs import random_batch
from ssu_jax.training.optimizer import make_optimizer
from ssu_jax.training.state import averaged, first_state, state_shapes
from ssu_jax.training.step import jitted_step

STEPS, CLIPS = 3, 8


def tiny(family: str) -> Config:
    """Two slices a step, and slots enough that no token is dropped: which ones are is each device's own affair."""
    config = sizes.tiny()
    config.family = family
    if family == "tvsl":
        config.train.freeze, config.tvsl.width = ("trio",), 16
    config.train.batch_size, config.train.grad_accumulation = 2 * CLIPS, 2
    config.model.moe.num_experts, config.model.moe.capacity_factor = 4, 4.0
    config.train.learning_rate, config.train.warmup_steps = 1e-3, 0
    return config


class Run:
    """One mesh."""

    def __init__(self, family: str, mesh_sizes: tuple[int, ...]):
        self.config = tiny(family)
        devices = jax.devices()[: int(np.prod(mesh_sizes))]
        self.mesh = sharding.make_mesh(mesh_sizes, devices) if len(devices) > 1 else None
        self.model, self.optimizer = models.build(self.config), make_optimizer(self.config.train)
        self.parts = (self.model, self.config, self.optimizer)
        self.step = sharding.within(self.mesh, jitted_step(*self.parts, self.mesh))
        batch = random_batch(self.config, self.config.train.batch_size)
        self.batch = sharding.place(batch, sharding.batch_sharding(self.mesh))

    def train(self, state, num_steps: int):
        losses = []
        for _ in range(num_steps):
            state, metrics = self.step(state, self.batch)
            losses.append(float(metrics["loss"]))
        return state, losses

    def describe(self, state) -> list[float]:
        """Three clips, which no mesh of eight divides: the sums of the masks' probabilities."""
        batch = random_batch(self.config, 3)
        if self.config.family == "tvsl":
            locate = sharding.spread(locating.make_locate(self.model), self.mesh)
            found = locate(averaged(state), batch.pictures, batch.sound, batch.sources)
            return np.concatenate([np.asarray(part, np.float64).ravel() for part in found]).tolist()
        inputs = averaged(state), batch.frames, batch.log_mel, batch.frame_valid
        if self.config.family == "pretraining":
            measure = sharding.spread(objective.make_measure(self.model), self.mesh)
            return np.concatenate([np.asarray(part, np.float64) for part in measure(*inputs).values()]).ravel().tolist()
        describe = sharding.spread(decoding.make_describe(self.model), self.mesh)
        masks, ids = describe(*inputs)
        return [*np.asarray(masks, np.float64).sum(axis=(1, 2, 3)), *np.asarray(ids, np.float64).sum(axis=(1, 2))]


def share_held(state) -> float:
    """Bytes of the state on one device over those of the whole."""
    leaves = jax.tree.leaves(state)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return held / sum(leaf.nbytes for leaf in leaves)


def main(family: str, folder: pathlib.Path, meshes: list[tuple[int, ...]]) -> None:
    found = {}
    with CheckpointStore(folder) as store:
        store.find_newest()  # makes the folder
        for number, mesh_sizes in enumerate(meshes):
            run = Run(family, mesh_sizes)
            state = first_state(*run.parts, {}, run.mesh)
            result = {"share_held": share_held(state)}
            state, losses = run.train(state, STEPS - 1)
            result["share_held_after"] = share_held(state)
            if number == len(meshes) - 2:
                store.save(STEPS - 1, state, {})
                store.wait()
            state, last = run.train(state, 1)
            result |= {"losses": losses + last, "described": run.describe(state)}
            if number == len(meshes) - 1:
                newest = store.find_newest()
                state = read_state(newest, state_shapes(*run.parts, run.mesh))
                result |= {"resumed_share_held": share_held(state), "resumed": run.train(state, 1)[1]}
            found[",".join(map(str, mesh_sizes))] = result
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), [tuple(map(int, text.split(","))) for text in sys.argv[3:]])
