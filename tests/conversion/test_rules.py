"""Tables of names: templates, transforms, and everything that does not fit said at once."""

import numpy as np
import pytest

from ssu_jax.conversion import catalogue, rules
from ssu_jax.conversion.rules import Ignored, MisfitError, Rule
from ssu_jax.types import UserError

TABLE = (
    Rule("layers.{i}.fc.weight", "layer_{i}/dense/kernel", "dense"),
    Rule("layers.{i}.fc.bias", "layer_{i}/dense/bias"),
    Rule("grid.{y}.{x}.weight", "grid/{x}_{y}/kernel", "conv"),
    Rule("twin.{i}.{i}", "twin_{i}"),
    Ignored("layers.{i}.num_batches_tracked"),
)
# Shape of the published tensor that each transform is made for.
SHAPES = {
    "same": (2, 3),
    "dense": (4, 3),
    "conv": (5, 4, 3, 2),
    "conv1d": (5, 4, 3),
    "pointwise": (1, 1, 3, 4),
    "vector": (1, 7),
}


def test_numbers_are_carried_from_one_name_to_the_other():
    matches, unknown = rules.match(TABLE, ["layers.12.fc.weight", "grid.3.10.weight"])
    assert unknown == []
    assert matches == [
        ("layers.12.fc.weight", "layer_12/dense/kernel", "dense"),
        ("grid.3.10.weight", "grid/10_3/kernel", "conv"),
    ]
    assert rules.match_back(TABLE, [match.path for match in matches]) == (matches, [])


NO_NAMES = (
    "layers.1.fc.weight. xlayers.1.fc.weight layers.a.fc.weight layers..fc.weight layers.1.fcxweight "
    "layers.1.2.fc.weight layers.-1.fc.weight twin.1.2"
)


@pytest.mark.parametrize("name", NO_NAMES.split())
def test_a_name_fits_whole_or_not_at_all(name):
    assert rules.match(TABLE, [name]) == ([], [name])


def test_a_field_that_stands_twice_means_one_number():
    assert rules.match(TABLE, ["twin.7.7"])[0] == [("twin.7.7", "twin_7", "same")]


def test_ignored_tensors_are_neither_matched_nor_unknown():
    assert rules.match(TABLE, ["layers.0.num_batches_tracked"]) == ([], [])


def test_everything_that_does_not_fit_is_said_at_once():
    published = {
        "layers.0.fc.weight": (4, 3),  # fits
        "layers.0.fc.bias": (5,),  # of another size
        "layers.1.fc.bias": (4,),  # the model has no such layer
        "head.weight": (2, 2),  # no rule
        "grid.0.0.weight": (4, 3),  # of another rank than the transform takes
    }
    wanted = {
        "layer_0/dense/kernel": (3, 4),
        "layer_0/dense/bias": (4,),
        "grid/0_0/kernel": (3, 4),
        "twin_0": (1,),
    }
    with pytest.raises(MisfitError) as error:
        rules.plan(TABLE, published, wanted, "here")
    assert error.value.problems == [
        "head.weight (2, 2): no rule knows it",
        "layers.0.fc.bias (5,): layer_0/dense/bias wants (4,), this gives (5,)",
        "layers.1.fc.bias (4,): the model has no layer_1/dense/bias",
        "grid.0.0.weight (4, 3): grid/0_0/kernel wants (3, 4), this gives ()",
        "twin_0 (1,): nothing fills it",
    ]
    assert str(error.value).startswith("here: 5 tensors do not fit: head.weight")
    assert "\n" not in str(error.value)


def test_two_tensors_for_one_place():
    table = (Rule("a", "x"), Rule("b", "x"))
    with pytest.raises(UserError, match="b: x is filled by a already"):
        rules.plan(table, {"a": (1,), "b": (1,)}, {"x": (1,)}, "here")


def test_a_plan_fills_every_place_once():
    published = {"layers.0.fc.weight": (4, 3), "layers.0.fc.bias": (4,), "layers.0.num_batches_tracked": ()}
    wanted = {"layer_0/dense/kernel": (3, 4), "layer_0/dense/bias": (4,)}
    assert {match.path for match in rules.plan(TABLE, published, wanted, "here")} == set(wanted)


@pytest.mark.parametrize("name", rules.TRANSFORMS)
def test_a_transform_there_and_back_is_exact(name):
    published = np.random.default_rng(0).normal(size=SHAPES[name]).astype(np.float32)
    ours = rules.TRANSFORMS[name].forward(published)
    back = rules.TRANSFORMS[name].backward(ours)
    assert back.shape == published.shape
    assert np.array_equal(back, published)
    assert rules.shape_after(published.shape, name) == ours.shape
    assert rules.shape_before(ours.shape, name) == published.shape


@pytest.mark.parametrize(
    ("name", "shape"), [("dense", (3,)), ("conv", (3, 3)), ("vector", (2, 3)), ("pointwise", (2, 1, 3, 4))]
)
def test_a_transform_of_another_shape_gives_none(name, shape):
    assert rules.shape_after(shape, name) == ()


def test_dense_and_conv_by_hand():
    dense = rules.TRANSFORMS["dense"].forward(np.array([[1, 2, 3], [4, 5, 6]]))  # 2 outputs of 3 inputs
    assert dense.tolist() == [[1, 4], [2, 5], [3, 6]]
    kernel = np.arange(24).reshape(2, 3, 4, 1)  # out, in, y, x
    assert rules.TRANSFORMS["conv"].forward(kernel)[3, 0, 2, 1] == kernel[1, 2, 3, 0]


def test_an_unknown_kind_is_told_the_known_ones():
    with pytest.raises(UserError, match="unknown kind of weights 'pvt': wanted one of pvt_v2, clip"):
        catalogue.entry_of("pvt")


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_every_entry_bears_its_name_and_says_how_to_read_it_back(kind):
    entry = catalogue.entry_of(kind)
    assert entry.kind == kind
    assert entry.config_type is not None
    assert (entry.build is None) == (entry.shapes is not None)
