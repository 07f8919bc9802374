"""Our encoders against the same ones of transformers: random weights, equal input, CPU, in turns.

Both run in float32 with all cores: ours compiled, theirs as torch runs it by default (eager, its own fused
attention). A run of the one is followed by a run of the other, so that a busy machine slows both alike.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from ssu_jax.config.encoders import clip as clip_sizes
from ssu_jax.config.encoders import pvt_v2 as pvt_v2_sizes
from ssu_jax.conversion import catalogue
from ssu_jax.encoders.clip import CLIPVision
from ssu_jax.encoders.pvt_v2 import PVTv2
from ssu_jax.types import UserError

FRAMES, SIZE = 10, 224  # one clip
PACKAGES = ("torch", "transformers")  # of the extra [convert]


class Peer(NamedTuple):
    """One encoder in both implementations.

    kind, config: what conversion's catalogue calls it; its published config makes theirs.  module: ours.
    features: names of the features that theirs computes too; the others are not computed.
    """

    kind: str
    config: Any
    module: nn.Module
    features: tuple[str, ...]


def _peers() -> dict[str, Peer]:
    clip, pvt = clip_sizes.VARIANTS["vit_b_16"], pvt_v2_sizes.VARIANTS["b5"]
    return {
        "pvt_v2_b5": Peer("pvt_v2", pvt, PVTv2(pvt), ("stage_1", "stage_2", "stage_3", "stage_4")),
        "clip_vit_b_16": Peer(
            "clip",
            clip_sizes.CLIPConfig(towers="vision", vision=clip.vision),
            CLIPVision(clip.vision),
            ("tokens", "embedding"),
        ),
    }


NAMES = tuple(_peers())


def require() -> None:
    """Raises UserError where torch or transformers is absent; imports neither."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--peers runs the published encoders, and {package} is not installed: pip install 'ssu_jax[convert]'"
            )


def compare(name: str, repeats: int = 5, frames: int = FRAMES, size: int = SIZE) -> dict[str, Any]:
    """Times one of NAMES on `frames` pictures of `size` x `size`.

    Returns a JSON-able dictionary: medians and fastest runs in seconds, their ratio (ours over theirs, so below 1 is
    faster), parameters of both, seconds ours took to compile. Raises UserError where torch or transformers is absent.
    """
    peer = _peers()[name]
    theirs, num_theirs = _theirs(peer)
    images = np.random.default_rng(0).normal(0.0, 1.0, (frames, size, size, 3)).astype(np.float32)
    with jax.default_device(jax.devices("cpu")[0]):
        start = time.perf_counter()
        ours, num_ours = _ours(peer, images)
        compile_seconds = time.perf_counter() - start
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        runs = {"ours": ours, "theirs": theirs(images)}
        for number in range(repeats + 1):
            for side, run in runs.items():
                start = time.perf_counter()
                run()
                if number:  # the first run of each is not counted
                    seconds[side].append(time.perf_counter() - start)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    fastest = {side: min(each) for side, each in seconds.items()}
    return {
        "encoder": name,
        "input": [frames, size, size, 3],
        "seconds": medians,
        "fastest_seconds": fastest,
        "ratio": medians["ours"] / medians["theirs"],
        "ratio_of_fastest": fastest["ours"] / fastest["theirs"],
        "repeats": repeats,
        "parameters": {"ours": num_ours, "theirs": num_theirs},
        "compile_seconds": compile_seconds,
        "versions": _versions(),
    }


def _ours(peer: Peer, images: np.ndarray) -> tuple[Callable[[], Any], int]:
    """One call of the compiled encoder, and its parameters."""
    params = jax.jit(peer.module.init)(jax.random.key(0), images)
    images = jax.device_put(images)

    @jax.jit
    def forward(params: Any, images: Any) -> dict[str, Any]:
        features = peer.module.apply(params, images)
        return {name: features[name] for name in peer.features}

    compiled = forward.lower(params, images).compile()
    return lambda: jax.block_until_ready(compiled(params, images)), sum(leaf.size for leaf in jax.tree.leaves(params))


def _theirs(peer: Peer) -> tuple[Callable[[np.ndarray], Callable[[], Any]], int]:
    """images -> one call of the published implementation; and its parameters."""
    require()
    import torch
    import transformers

    stated = dict(catalogue.entry_of(peer.kind).write_config(peer.config))
    (architecture,) = stated.pop("architectures")
    model = getattr(transformers, architecture)(transformers.AutoConfig.for_model(**stated)).eval()

    def given(images: np.ndarray) -> Callable[[], Any]:
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

        def forward() -> Any:
            with torch.inference_mode():
                return model(pixel_values=pixels)

        return forward

    return given, sum(parameter.numel() for parameter in model.parameters())


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("jax", *PACKAGES)}
