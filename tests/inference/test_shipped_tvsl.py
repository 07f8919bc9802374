"""The T-VSL that ships, on made clips of a seed that nothing was trained on."""

import jax
import pytest

from ssu_jax import checkpoint, localization, models
from ssu_jax.data import mixtures, records
from ssu_jax.data.synthetic import make_clip
from ssu_jax.inference import loading
from ssu_jax.models.tvsl import locating
from ssu_jax.types import UserError


@pytest.fixture(scope="module")
def shipped():
    return loading.load("shipped:tvsl")


@pytest.fixture(scope="module")
def directory(tmp_path_factory, shipped):
    folder = tmp_path_factory.mktemp("records")
    clips = (make_clip(90210, "test", number) for number in range(16))
    records.write_split(folder, "test", clips, 1, classes=shipped.config.data.classes, source={"made by": "a test"})
    return str(folder)


def test_it_finds_what_makes_each_sound_and_nothing_for_a_wrong_word(shipped, directory):
    batches = mixtures.eval_mixtures(shipped.config, "test", 16, 32, directory)
    locate = locating.make_locate(models.build(shipped.config, shipped.tokenizer))
    metrics = localization.evaluate(locate, jax.device_put(shipped.params), shipped.config, batches)
    assert metrics["num_sources"] == 64
    assert metrics["ciou@0.3"] >= 0.85
    assert metrics["found_ciou@0.3"] >= 0.8
    assert metrics["quiet"] >= 0.95


def test_it_names_no_folder_of_the_machine_that_made_it(shipped):
    made_by = checkpoint.made_by(checkpoint.locate("shipped:tvsl"))
    assert shipped.config.data.dir == ""
    for place in (shipped.config.train.init_from, *made_by["published_weights"].values()):
        assert not place.startswith("/")


def test_a_model_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(UserError, match="no model of this name ships, wanted shipped:nano or tvsl"):
        loading.load("shipped:tsvl")
