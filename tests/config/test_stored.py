"""Dataclasses back from JSON."""

import dataclasses
import json

import pytest

from ssu_jax.config import stored
from ssu_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Tower:
    width: int
    sizes: tuple[tuple[int, int], ...] = ((1, 2),)


@dataclasses.dataclass(frozen=True)
class Model:
    tower: Tower = dataclasses.field(default_factory=lambda: Tower(3))
    other: Tower | None = None
    name: str = "x"


@pytest.mark.parametrize("model", [Model(), Model(Tower(5, ((3, 4), (5, 6)))), Model(other=Tower(7))])
def test_there_and_back(model):
    assert stored.from_dict(Model, json.loads(json.dumps(dataclasses.asdict(model)))) == model


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"nmae": "x"}, "here: unknown field 'nmae', known are name, other, tower"),
        ({"tower": {}}, "here.tower: the field 'width' is missing"),
        ({"tower": 3}, "here.tower: wanted the fields of a Tower, got 3"),
        ([], r"here: wanted the fields of a Model, got \[\]"),
    ],
)
def test_what_does_not_fit_is_named(tree, said):
    with pytest.raises(UserError, match=said):
        stored.from_dict(Model, tree, "here")
