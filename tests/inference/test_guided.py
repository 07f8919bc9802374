"""The shipped model guided by words, on a video of the built-in world with two and three sources at once."""

import json
import re

import pytest
from small_videos import make_video

from ssu_jax.data.synthetic.world import make_clip
from ssu_jax.inference import outputs
from ssu_jax.inference.predictor import Predictor
from ssu_jax.types import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Purple bell, green siren and cyan whistle: in seconds 1 to 6 one, three or two of them sound."""
    clip = make_clip(4711, "test", 1)
    path = make_video(
        tmp_path_factory.mktemp("world") / "world.mkv", seconds=10, fps=2, size=(96, 96), sound=clip.sound, rate=16000,
        codecs=("libx264", "pcm_s16le"), drawn=lambda seconds, *_: clip.frames[int(seconds)],
    )  # fmt: skip
    return clip, path, Predictor.from_checkpoint()


def test_only_what_the_words_name_is_left(world):
    clip, path, predictor = world
    for item in clip.objects:
        found = list(predictor.predict(path, text=item.name).predictions)
        for one, sounds, mask in zip(found, item.sounding, item.masks, strict=True):
            assert one.mask.any() == bool(one.caption) == sounds
            if sounds:
                assert (one.mask & mask).sum() > 0.7 * (one.mask | mask).sum()
                assert re.search(rf"^The \w+ {item.name} (on|in) the \w+ is \w+\.$", one.caption)
    assert not any(one.mask.any() or one.caption for one in predictor.predict(path, text="dog").predictions)


def test_colours_count_and_the_words_are_kept_beside_the_masks(world, tmp_path):
    clip, path, predictor = world
    described = predictor.predict(path, text="purple siren, Purple Bell")
    outputs.write(described, tmp_path, ["json"])
    written = json.loads((tmp_path / "prediction.json").read_text())
    assert written["text"] == ["purple siren", "purple bell"]
    bell = next(item for item in clip.objects if item.name == "bell")
    assert predictor._guided[0]._cache_size() == 1, "one program for all questions"
    captions = [frame["caption"] for frame in written["frames"]]
    assert captions == ["The purple bell on the left is ringing." if sounds else "" for sounds in bell.sounding]


def test_a_word_too_many_is_refused_before_anything_is_read(world):
    _, path, predictor = world
    with pytest.raises(UserError, match="whisle.*whistle"):
        predictor.predict(path, text="whisle")
