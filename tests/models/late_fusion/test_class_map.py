"""The class map that ships, and what a map may not hold."""

import copy
import importlib.resources
import json

import numpy as np
import pytest

from ssu_jax.config.published_classes import VOC, audioset
from ssu_jax.models.late_fusion import class_map as module
from ssu_jax.models.late_fusion.class_map import class_map


@pytest.fixture
def tree():
    folder = importlib.resources.files("ssu_jax.models.late_fusion")
    return json.loads(folder.joinpath("class_map.json").read_text(encoding="utf-8"))


def sound(table, verb, noun=None):
    """Its number."""
    found = [
        number
        for number, one in enumerate(table.sounds)
        if one.verb == verb and (noun is None or noun in table.sources[one.source].noun)
    ]
    assert len(found) == 1
    return found[0]


def test_what_ships_names_published_classes_and_gates_in_order():
    table = class_map()
    assert all(0.0 < one.keep < one.on < 1.0 and one.heard for one in table.sounds)
    assert {VOC[number] for one in table.sources for number in one.seen} >= {"dog", "cat", "bird", "person", "train"}
    assert table.coloured[VOC.index("dog")]
    assert not table.coloured[VOC.index("person")], "people get no colour"
    assert not table.named[audioset().index("Silence")]
    assert table.named[audioset().index("Engine")]


def test_sounds_of_one_source_share_it_and_nouns_set_sources_apart():
    table = class_map()
    bark, growl = (table.sounds[sound(table, verb)].source for verb in ("barking", "growling"))
    assert bark == growl
    baby = table.sounds[sound(table, "laughing", "baby")].source
    person = table.sounds[sound(table, "speaking")].source
    assert baby != person
    assert table.sources[baby].seen == table.sources[person].seen == (VOC.index("person"),)
    assert table.noun_of(baby, VOC.index("person"), several=False) == "baby"
    assert table.noun_of(person, VOC.index("person"), several=True) == "people"
    assert table.noun_of(table.sounds[sound(table, "bleating")].source, VOC.index("cow"), several=False) == "sheep"


def test_a_sound_hides_the_others_of_that_verb_and_never_itself():
    table = class_map()
    baby = sound(table, "laughing", "baby")
    others = [number for number, one in enumerate(table.sounds) if one.verb == "laughing" and number != baby]
    assert table.hides[baby, others].all()
    assert not np.diag(table.hides).any()
    assert not table.hides[others, baby].any()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [("heard", ["Barking at the moon"], "at the moon"), ("seen", ["hound"], "hound"), ("hides", ["mumbling"], "mumb")],
)
def test_unknown_names_are_refused(tree, field, value, named):
    changed = copy.deepcopy(tree)
    changed["sounds"][0][field] = value
    with pytest.raises(ValueError, match=named):
        module.read(changed)
