"""The comparison with transformers' encoders, on small ones."""

import sys

import pytest

from ssu_jax.config import sizes
from ssu_jax.config.encoders.clip import CLIPConfig, CLIPVisionConfig
from ssu_jax.config.encoders.pvt_v2 import PVTv2Config
from ssu_jax.encoders.clip import CLIPVision
from ssu_jax.encoders.pvt_v2 import PVTv2
from ssu_jax.profiling import peers, report
from ssu_jax.types import UserError


@pytest.mark.parametrize("package", peers.PACKAGES)
def test_without_the_packages_it_is_a_line_and_no_work(monkeypatch, package):
    monkeypatch.setattr(peers, "PACKAGES", (package,))  # the other may be absent here too
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed: pip install 'ssu_jax\[convert\]'"):
        report.profile(sizes.tiny(), with_peers=True)


def test_every_peer_is_the_encoder_of_the_paper_s_size():
    found = peers._peers()
    assert found["pvt_v2_b5"].config.depths == (3, 6, 40, 3)
    assert (found["clip_vit_b_16"].config.vision.patch_size, found["clip_vit_b_16"].config.towers) == (16, "vision")


@pytest.mark.full
@pytest.mark.parametrize("name", peers.NAMES)
def test_both_sides_run_the_same_encoder(monkeypatch, name):
    pvt = PVTv2Config(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))
    vision = CLIPVisionConfig(image_size=64, width=32, depth=2, num_heads=2, hidden=64, embedding_width=16)
    small = {
        "pvt_v2_b5": (pvt, PVTv2(pvt)),
        "clip_vit_b_16": (CLIPConfig(towers="vision", vision=vision), CLIPVision(vision)),
    }
    whole = {key: peer._replace(config=small[key][0], module=small[key][1]) for key, peer in peers._peers().items()}
    monkeypatch.setattr(peers, "_peers", lambda: whole)
    found = peers.compare(name, repeats=3, frames=2, size=64)
    assert found["parameters"]["ours"] == found["parameters"]["theirs"] > 1000
    assert found["input"] == [2, 64, 64, 3]
    assert found["ratio"] == found["seconds"]["ours"] / found["seconds"]["theirs"] > 0
    assert found["fastest_seconds"]["ours"] <= found["seconds"]["ours"]
