"""Published weights: into their places at the start of a run, refused in one line, never needed again."""

import copy
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import toy
from tokenizers import decoders, pre_tokenizers
from tokenizers import models as vocabularies

from ssu_jax import checkpoint, models
from ssu_jax.config import sizes
from ssu_jax.config.encoders import causal_lm, clip, pvt_v2, vggish
from ssu_jax.data import pipeline
from ssu_jax.tokenizer.clip_bpe import END, START, CLIPTokenizer
from ssu_jax.training import loop, optimizer, parts, published, state
from ssu_jax.types import UserError

PVT = pvt_v2.PVTv2Config(widths=(4, 4, 4, 4), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
TOWER = {"width": 8, "depth": 1, "num_heads": 1, "hidden": 8, "embedding_width": 8}


def write_folder(folder: pathlib.Path, kind: str, config, tree: dict, tokenizer: str = "") -> pathlib.Path:
    """A folder as `ssu convert` leaves it."""
    folder.mkdir(parents=True)
    weights = {name: np.ascontiguousarray(leaf) for name, leaf in parts.flat(tree).items()}
    stored = {"format": "ssu_jax encoder 1", "kind": kind, "config": dataclasses.asdict(config)}
    contents = {"model.safetensors": safetensors.numpy.save(weights), "config.json": json.dumps(stored).encode()}
    if tokenizer:
        contents["tokenizer.json"] = tokenizer.encode()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    listed = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in contents.items()}
    manifest = {"format": "ssu_jax encoder 1", "files": listed, "sources": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def small_base():
    """The paper's model with every encoder a thousandth of its size, and the shapes of its parameters."""
    vision = clip.CLIPVisionConfig(**TOWER)
    towers = clip.CLIPConfig(vision=vision, text=clip.CLIPTextConfig(vocab_size=20, end_id=19, **TOWER))
    heads = {"num_heads": 1, "num_kv_heads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pvt_v2.VARIANTS, "b5", PVT)
        patch.setitem(vggish.VARIANTS, "torch", vggish.VGGishConfig(widths=(4, 4, 4, 4), hidden=8))
        patch.setitem(clip.VARIANTS, "vit_b_16", towers)
        lm = causal_lm.CausalLMConfig(vocab_size=30, depth=1, width=8, hidden=8, **heads)
        patch.setitem(causal_lm.VARIANTS, "gpt2", lm)
        config = sizes.base()
        config.data.num_frames = 1
        config.model.vocab_size = 34
        config.model.width, config.model.pixel_width = 16, 16
        config.model.fusion_layers = config.model.text_layers = config.model.query_layers = 1
        model = models.build(config)
        yield config, jax.eval_shape(lambda: models.init(model, config, jax.random.key(0)))


@pytest.fixture
def base(small_base):
    return copy.deepcopy(small_base[0]), small_base[1]


def write_all(folder, shapes) -> dict[str, pathlib.Path]:
    """Folders for all four encoders; every tensor counts up from its own number."""
    flat = {name: np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) + len(name)
            for name, leaf in parts.flat(shapes).items()}  # fmt: skip

    def below(module):
        return {name.removeprefix(module + "/"): leaf for name, leaf in flat.items() if name.startswith(module + "/")}

    trees = {
        "visual": ("pvt_v2", pvt_v2.VARIANTS["b5"], below("visual_encoder")),
        "audio": ("vggish", vggish.VARIANTS["torch"], below("audio_encoder/vggish")),
        "clip": ("clip", clip.VARIANTS["vit_b_16"],
                 {f"{tower}/{name}": leaf for tower in ("vision", "text")
                  for name, leaf in below(f"clip_{tower}").items()} | {"logit_scale": np.float32(1)}),
        "language_model": ("causal_lm", causal_lm.VARIANTS["gpt2"], below("text_decoder/lm/model")),
    }  # fmt: skip
    return {section: write_folder(folder / section, kind, config, parts.nested(tree))
            for section, (kind, config, tree) in trees.items()}  # fmt: skip


def name_all(config, folders):
    for section, folder in folders.items():
        getattr(config.model, section).weights = str(folder)


MODULES = ("visual_encoder", "audio_encoder/vggish", "clip_vision", "clip_text", "text_decoder/lm/model")


def test_every_encoder_of_the_paper_s_model_finds_its_place(base, tmp_path):
    config, shapes = base
    name_all(config, write_all(tmp_path, shapes))
    found = published.read(config, shapes)
    wanted = {name: leaf.shape for name, leaf in parts.flat(shapes).items() if parts.is_named(name, MODULES)}
    assert {name: leaf.shape for name, leaf in parts.flat(found.params).items()} == wanted
    assert {name.partition("/")[0] for name in wanted} == {module.partition("/")[0] for module in MODULES}
    for name, leaf in parts.flat(found.params).items():
        assert leaf.dtype == np.float32
        assert leaf.flat[0] == len(name)  # each tensor its own
    assert set(found.origins) == set(MODULES)
    assert found.origins["clip_text"] == found.origins["clip_vision"] != found.origins["visual_encoder"]
    lines = published.remarks(config, shapes, found)
    assert len(lines) == 5
    assert not any("warning" in line for line in lines)


def test_what_a_switch_takes_out_is_not_read(base, tmp_path):
    config, shapes = base
    name_all(config, write_all(tmp_path, shapes))
    shutil.rmtree(tmp_path / "clip")
    without = {name: tree for name, tree in shapes.items() if not name.startswith("clip_")}
    assert "clip_vision" not in published.read(config, without).params


def test_frozen_and_random_is_told_in_one_line(base):
    config, shapes = base
    assert published.read(config, shapes) == published.NOTHING
    (line,) = published.remarks(config, shapes, published.NOTHING)
    assert line.startswith("warning: frozen and random")
    assert all(word in line for word in ("audio_encoder/vggish", "clip_vision", "clip_text", "text_decoder/lm/model"))
    config.train.freeze = ()
    assert published.remarks(config, shapes, published.NOTHING) == []


def test_everything_that_does_not_fit_is_told_at_once(base, tmp_path, monkeypatch):
    config, shapes = base
    folders = write_all(tmp_path, shapes)
    name_all(config, folders)
    monkeypatch.setitem(pvt_v2.VARIANTS, "b0", PVT)
    monkeypatch.setitem(pvt_v2.VARIANTS, "b5", dataclasses.replace(PVT, depths=(1, 2, 1, 1)))
    config.model.audio.weights = str(tmp_path / "nowhere")
    (folders["clip"] / "manifest.json").unlink()
    (folders["clip"] / "config.json").write_text('{"model_type": "clip"}')
    shutil.rmtree(folders["language_model"])
    lm = dataclasses.replace(causal_lm.VARIANTS["gpt2"], width=4)
    write_folder(folders["language_model"], "causal_lm", lm, {"embed": {"embedding": np.zeros((30, 4))}})
    with pytest.raises(UserError) as caught:
        published.read(config, shapes)
    said = str(caught.value)
    assert "depths is (1, 1, 1, 1), wanted (1, 2, 1, 1): model.visual.variant=b0 fits" in said
    assert f"model.audio.weights: {tmp_path / 'nowhere'} does not exist" in said
    assert f"run `ssu convert {folders['clip']} --kind clip --out {folders['clip']}-converted`" in said
    assert "width is 4, wanted 8: no named size fits" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("clip", {"vision": {"activation": "gelu"}}, "vision.activation is gelu, wanted quick_gelu"),
        ("clip", {"text": {"end_id": 7}}, "text.end_id is 7, wanted 19"),
        ("clip", {"text": {"end_id": clip.LEGACY_END_ID}}, ""),  # means the last of the 20 ids
        ("clip", {"vision": {"norm_epsilon": 1e-6}}, "vision.norm_epsilon is 1e-06"),
        ("visual", {"joint_key_value": True}, "joint_key_value is True, wanted False"),
        ("visual", {"convolution_norm_epsilon": 1e-5}, "convolution_norm_epsilon is 1e-05"),
        ("visual", {"num_heads": (2, 2, 2, 2)}, "num_heads is (2, 2, 2, 2)"),
        ("audio", {"final_relu": False}, "final_relu is False, wanted True"),
        ("audio", {"layout": "tensorflow"}, ""),  # of the file alone
        ("language_model", {"norm_epsilon": 1e-6}, "norm_epsilon is 1e-06"),
        ("language_model", {"activation": "gelu"}, "activation is gelu, wanted gelu_tanh"),
    ],
)
def test_weights_that_have_our_shapes_and_mean_another_network(base, tmp_path, section, changes, said):
    config, shapes = base
    folder = write_all(tmp_path, shapes)[section]
    kind, sizes_of_it = {
        "visual": ("pvt_v2", pvt_v2.VARIANTS["b5"]), "audio": ("vggish", vggish.VARIANTS["torch"]),
        "clip": ("clip", clip.VARIANTS["vit_b_16"]), "language_model": ("causal_lm", causal_lm.VARIANTS["gpt2"]),
    }[section]  # fmt: skip
    tree = safetensors.numpy.load_file(folder / "model.safetensors")
    changed = {name: dataclasses.replace(getattr(sizes_of_it, name), **value) if isinstance(value, dict) else value
               for name, value in changes.items()}  # fmt: skip
    other = write_folder(tmp_path / "other", kind, dataclasses.replace(sizes_of_it, **changed), parts.nested(tree))
    getattr(config.model, section).weights = str(other)
    if said:
        with pytest.raises(UserError, match=re.escape(said)):
            published.read(config, shapes)
    else:
        assert published.read(config, shapes).params


def test_tensors_must_be_there_in_their_shape(base, tmp_path):
    config, shapes = base
    tree = {name: np.zeros(leaf.shape, np.float32) for name, leaf in parts.flat(shapes["visual_encoder"]).items()}
    first, second = sorted(tree)[:2]
    del tree[first]
    tree[second] = np.zeros((3, 3), np.float32)
    config.model.visual.weights = str(write_folder(tmp_path / "pvt", "pvt_v2", PVT, parts.nested(tree)))
    with pytest.raises(UserError) as caught:
        published.read(config, shapes)
    wanted = parts.flat(shapes["visual_encoder"])
    assert f"visual_encoder/{first} is missing, wanted {tuple(wanted[first].shape)}" in str(caught.value)
    assert f"visual_encoder/{second} is (3, 3), wanted {tuple(wanted[second].shape)}" in str(caught.value)


def test_other_weights_and_useless_ones_are_refused(base, tmp_path):
    config, shapes = base
    folders = write_all(tmp_path, shapes)
    config.model.visual.weights = str(folders["audio"])
    with pytest.raises(UserError, match="model.visual.weights: .*'vggish', wanted 'pvt_v2'"):
        published.read(config, shapes)
    config.model.visual.kind = "pyramid"
    with pytest.raises(UserError, match="model.visual.weights is set, but model.visual.kind"):
        published.read(config, shapes)


def test_a_damaged_file_is_refused(base, tmp_path):
    config, shapes = base
    folders = write_all(tmp_path, shapes)
    config.model.visual.weights = str(folders["visual"])
    weights = folders["visual"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        published.read(config, shapes)


def test_names_that_change_no_number_may_differ(base, tmp_path):
    config, shapes = base
    folders = write_all(tmp_path, shapes)
    shutil.rmtree(folders["clip"])
    tree = parts.nested({f"{tower}/{name}": np.zeros(leaf.shape, np.float32) for tower in ("vision", "text")
                         for name, leaf in parts.flat(shapes[f"clip_{tower}"]).items()})  # fmt: skip
    text = dataclasses.replace(clip.VARIANTS["vit_b_16"].text, end_id=clip.LEGACY_END_ID)
    write_folder(folders["clip"], "clip", dataclasses.replace(clip.VARIANTS["vit_b_16"], text=text), tree)
    config.model.clip.weights = str(folders["clip"])
    assert set(published.read(config, shapes).params) == {"clip_vision", "clip_text"}


def byte_pairs() -> str:
    backend = tokenizers.Tokenizer(
        vocabularies.BPE({"b": 0, "e": 1, "l": 2, "be": 3, "ll": 4}, [("b", "e"), ("l", "l")])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend.to_str()


def clip_tokenizer(size: int) -> str:
    """Of as many ids, the last of which ends a text."""
    ids = {START: 0} | {f"{chr(ord('a') + i)}</w>": 1 + i for i in range(size - 2)} | {END: size - 1}
    return tokenizers.Tokenizer(vocabularies.BPE(ids, [], end_of_word_suffix="</w>")).to_str()


def test_clip_brings_its_tokenizer_and_it_must_be_its_own(base, tmp_path):
    config, shapes = base
    assert published.clip_tokenizer_of(config, shapes) is None
    config.model.clip.weights = str(tmp_path)
    without_text = {name: tree for name, tree in shapes.items() if name != "clip_text"}
    assert published.clip_tokenizer_of(config, without_text) is None
    with pytest.raises(UserError, match="model.clip.weights: .*convert the weights with `--tokenizer FILE`"):
        published.clip_tokenizer_of(config, shapes)
    (tmp_path / "tokenizer.json").write_text(clip_tokenizer(18))
    with pytest.raises(UserError, match="has 18 ids and ends a text with 17, the text tower has 20 and looks for 19"):
        published.clip_tokenizer_of(config, shapes)
    (tmp_path / "tokenizer.json").write_text(clip_tokenizer(20))
    assert published.clip_tokenizer_of(config, shapes).encode("b", 4).tolist() == [[0, 2, 19, 0]]


def test_the_language_model_brings_its_vocabulary(tmp_path):
    config = sizes.tiny()
    folder = write_folder(tmp_path / "lm", "causal_lm", causal_lm.CausalLMConfig(), {"x": np.zeros(1)}, byte_pairs())
    config.model.language_model.weights = str(folder)
    found = published.tokenizer_of(config)
    assert found.encode("bell", 5).tolist() == [1, 3 + 4, 4 + 4, 2, 0]
    config.model.vocab_size = 8
    with pytest.raises(UserError, match="needs 9: set model.vocab_size=9"):
        published.tokenizer_of(config)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer.json is missing"):
        published.tokenizer_of(config)


@pytest.fixture
def toy_source(monkeypatch, tmp_path):
    """The toy's first layer takes published weights from `model.visual.weights`."""
    toy.install(monkeypatch.setattr)
    kernel = np.arange(3 * toy.WIDTH, dtype=np.float32).reshape(3, toy.WIDTH) / 10
    folder = write_folder(tmp_path / "published", "pvt_v2", PVT, {"kernel": kernel})

    def sources(config):
        weights = config.model.visual.weights
        return [published.Source("model.visual", weights, "pvt_v2", "b0", {"b0": PVT}, {"": "first"})]

    monkeypatch.setattr(published, "sources", sources)
    return folder, kernel


def test_a_run_begins_with_published_weights_and_goes_on_without_the_folder(toy_source, tmp_path, monkeypatch, capsys):
    folder, kernel = toy_source
    data = toy.write_records(tmp_path / "records", num_val=0)
    (folder / "clip.json").write_text(clip_tokenizer(20))
    load = lambda config, _: CLIPTokenizer.load(f"{config.model.visual.weights}/clip.json")  # noqa: E731
    monkeypatch.setattr(published, "clip_tokenizer_of", load)
    given = []
    train_batches = pipeline.train_batches
    monkeypatch.setattr(pipeline, "train_batches", lambda *a: given.append(a[3]) or train_batches(*a))

    def config(weights, **changes):
        changed = toy.config(data, train__num_steps=6, train__freeze=("first",), **changes)
        changed.model.visual.weights = str(weights)
        return changed

    with monkeypatch.context() as patch:
        polls = []
        patch.setattr(loop.CheckpointStore, "poll", lambda self: polls.append(1))
        patch.setattr(loop.Interruption, "requested", property(lambda self: len(polls) >= 3))
        loop.train(config(folder), tmp_path / "run")
    digest = json.loads((folder / "manifest.json").read_text())["files"]["model.safetensors"][1]
    assert f"first: 0.00 M published weights, sha256 {digest[:12]}" in capsys.readouterr().out
    shutil.rmtree(folder)
    last = loop.train(config(tmp_path / "moved"), tmp_path / "run")
    assert int(last.step) == 6
    assert "published" not in capsys.readouterr().out
    np.testing.assert_array_equal(last.params["first"]["kernel"], kernel)
    np.testing.assert_array_equal(checkpoint.load_model(tmp_path / "run").params["first"]["kernel"], kernel)
    assert [encode("b", 4).tolist() for encode in given] == [[[0, 2, 19, 0]]] * 2  # the second from the checkpoint
    versions = json.loads((tmp_path / "run/checkpoints/00000006/versions.json").read_text())
    assert versions["published_weights"] == {"first": digest}
    with pytest.raises(UserError, match="model.visual.weights is ''"):  # with none it would be another run
        loop.train(config(""), tmp_path / "run")


def test_published_weights_that_learn_begin_the_average_too(toy_source, tmp_path, monkeypatch):
    folder, kernel = toy_source
    config = toy.config(
        toy.write_records(tmp_path / "records", num_val=0), train__num_steps=1, train__learning_rate=0.0
    )
    config.model.visual.weights = str(folder)
    state = loop.train(config, tmp_path / "run")
    np.testing.assert_array_equal(state.params["first"]["kernel"], kernel)
    np.testing.assert_allclose(state.ema_params["first"]["kernel"], kernel, rtol=1e-6)


def test_every_leaf_has_a_buffer_of_its_own():
    # A step donates them all, and NumPy's memory must not be among them.
    config, weights = toy.config(""), {"first": {"kernel": np.ones((64, 64), np.float32)}}
    made = optimizer.make_optimizer(config.train)
    begun = jax.jit(functools.partial(state.create_state, config, made))(weights)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((begun.params, begun.ema_params))]
    assert len({*pointers, weights["first"]["kernel"].ctypes.data}) == 3
