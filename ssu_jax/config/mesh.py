"""How the devices are laid out: four axes whose sizes multiply to the number of devices."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class MeshConfig:
    """The batch is split over data, fsdp and expert; parameters over fsdp, expert and tensor."""

    data: int = option(-1, "devices that hold the same parameters and other clips; -1 in one of the four is what the "
                           "others leave", low=-1)  # fmt: skip
    fsdp: int = option(1, "parts that parameters, moments and averages are cut into, gathered where they are used",
                       low=-1)  # fmt: skip
    expert: int = option(1, "parts of the stacked experts; divides model.moe.num_experts", low=-1)
    tensor: int = option(1, "parts of the hidden axes of attention and feed-forward layers", low=-1)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """data, fsdp, expert, tensor."""
        return self.data, self.fsdp, self.expert, self.tensor


def mesh_problems(mesh: MeshConfig, num_experts: int) -> list[str]:
    """What is wrong with it whatever the number of devices."""
    wrong = {
        f"mesh: at most one of data, fsdp, expert, tensor may be -1, got {mesh.sizes}": mesh.sizes.count(-1) > 1,
        f"mesh: no axis may be 0, got {mesh.sizes}": 0 in mesh.sizes,
        f"mesh.expert ({mesh.expert}) must divide model.moe.num_experts ({num_experts})": mesh.expert > 1
            and num_experts % mesh.expert,
    }  # fmt: skip
    return [problem for problem, holds in wrong.items() if holds]
