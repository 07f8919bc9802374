"""AudioCLIP: equal to a torch reference, the published names and sizes, and back to them bit for bit."""

import dataclasses
import runpy

import numpy as np
import published
import pytest
import safetensors.numpy

from ssu_jax.checkpoint import pretrained
from ssu_jax.config.encoders.audioclip import VARIANTS
from ssu_jax.conversion import converting, sources
from ssu_jax.conversion.tables.audioclip import ENTRY
from ssu_jax.encoders import audioclip
from ssu_jax.encoders.clip_resnet import AttentionPool, CLIPResNet
from ssu_jax.types import UserError

LEFT_OUT = ("num_batches_tracked", "audio.fbsp.bias")
HOP = 40  # of the fixture; shapes do not tell it
FILE_BYTES = 537_302_068  # of AudioCLIP-Full-Training.pt, as its repository's pointer says
NORM = {"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0, "num_batches_tracked": None}


@pytest.fixture(scope="module")
def fixture(root):
    return root / "tests/fixtures/audioclip"


@pytest.fixture(scope="module")
def expected(fixture):
    with np.load(fixture / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def loaded(fixture):
    config, variables = published.load(ENTRY, *published.read(fixture))
    return dataclasses.replace(config, audio=dataclasses.replace(config.audio, hop=HOP)), variables


@pytest.fixture(scope="module")
def wide(expected):
    return (expected["quarters"].astype(np.float32) / 4.0).transpose(0, 2, 3, 1)


def assert_close_decibels(found, wanted):
    """Amplitudes within 1e-5 of the loudest of their frame, which is what float32 carries: -100 dB."""
    assert found.shape == wanted.shape
    found, wanted = (10.0 ** (x.astype(np.float64) / 20.0) for x in (found, wanted))
    loudest = wanted.max((1, 3), keepdims=True)
    np.testing.assert_allclose(found / loudest, wanted / loudest, rtol=0, atol=1e-5)


def test_every_feature_equals_the_reference(loaded, expected, wide):
    config, variables = loaded
    sound = expected["sound"].astype(np.float32)
    features = published.features_of(
        audioclip.AudioCLIP(config), variables, wide[:, :, : wide.shape[1]], expected["ids"], sound
    )
    names = {name for name in expected if name.startswith(("image_", "text_", "audio_", "logits_"))}
    assert features.keys() == names - {"image_released"}
    for name, value in features.items():
        if name == "audio_spectrum":
            assert_close_decibels(value, expected[name])
        else:
            np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)
    assert features["audio_dense"].shape == (2, 2, 2, 6)
    # Scales of the fixture are beyond the upper bound, inside, and beyond the lower one.
    for pair, scale in {"image_text": 100.0, "audio_image": np.exp(2.0), "audio_text": 1.0}.items():
        one, other = (features[f"{name}_embedding"] for name in pair.split("_"))
        cosines = one @ other.T / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)[None]
        np.testing.assert_allclose(features[f"logits_{pair}"], scale * cosines, rtol=1e-4, atol=1e-5)


def test_dense_tokens_of_both_kinds_and_sizes_equal_the_reference(loaded, expected, wide):
    config, variables = loaded
    params = variables["params"]["image"]
    features = published.features_of(CLIPResNet(config.image), {"params": params}, wide)
    assert features["dense"].shape == (1, 2, 4, 6)
    np.testing.assert_allclose(features["dense"], expected["wide_dense"], atol=1e-4)
    np.testing.assert_allclose(features["embedding"], expected["wide_embedding"], atol=1e-4)
    released = AttentionPool(dataclasses.replace(config.image, dense_positions="released"))
    for prefix, last in {"image": expected["image_stage_4"], "wide": features["stage_4"]}.items():
        embedding, dense = published.features_of(released, {"params": params["pool"]}, last)
        np.testing.assert_allclose(dense, expected[f"{prefix}_released"], atol=1e-4)
        np.testing.assert_allclose(embedding, expected[f"{prefix}_embedding"], atol=1e-4)
        assert np.abs(expected[f"{prefix}_dense"] - expected[f"{prefix}_released"]).max() > 0.01


def test_round_trip(fixture):
    _, tensors = published.read(fixture)
    assert tensors["audio.fbsp.bias"].shape == (0,)
    assert tensors["audio.bn1.num_batches_tracked"] == 7
    published.assert_round_trip(ENTRY, {}, tensors, LEFT_OUT)
    sizes = {"input_resolution": np.array(224), "context_length": np.array(77), "vocab_size": np.array(49408)}
    published.assert_round_trip(ENTRY, {}, tensors | sizes, (*LEFT_OUT, *sizes))


def test_folder_there_and_back_keeps_every_number(fixture, tmp_path):
    """As `ssu convert` does it, without --kind; how it is to be read is told."""
    source = sources.open_source(fixture, tmp_path / "scratch")
    assert converting.kind_of(source) == "audioclip"
    converting.convert(source, tmp_path / "ours", "audioclip")
    _, params = pretrained.read_pretrained(tmp_path / "ours", "audioclip")
    scales = {name: float(params[name]) for name in ("logit_scale", "logit_scale_ai", "logit_scale_at")}
    assert scales == {"logit_scale": 5.0, "logit_scale_ai": 2.0, "logit_scale_at": -1.0}
    (note,) = converting.convert_back(tmp_path / "ours", tmp_path / "back").notes
    assert "strict=False" in note
    back = safetensors.numpy.load_file(tmp_path / "back/model.safetensors")
    theirs = {name: x for name, x in published.read(fixture)[1].items() if not name.endswith(LEFT_OUT)}
    assert back.keys() == theirs.keys()
    assert all(back[name].tobytes() == x.tobytes() for name, x in theirs.items())


def test_everything_wrong_is_told_at_once(fixture):
    _, tensors = published.read(fixture)
    tensors["audio.att2.conv_point.scale"] = tensors.pop("audio.att2.conv_point.weight")
    tensors["transformer.resblocks.0.attn.in_proj_bias"] = tensors["transformer.resblocks.0.attn.in_proj_bias"][:16]
    del tensors["logit_scale_at"]
    with pytest.raises(UserError) as error:
        published.load(ENTRY, {}, tensors)
    for part in (
        "audio.att2.conv_point.scale",
        "audio/gate_2/point/kernel (1, 1, 4, 8): nothing fills it",
        "query_key_value/bias wants (48,)",
        "logit_scale_at (): nothing fills it",
    ):
        assert part in str(error.value)


def test_files_of_one_tower_are_refused(fixture):
    _, tensors = published.read(fixture)
    without = {name: x for name, x in tensors.items() if not name.startswith("audio.")}
    with pytest.raises(UserError, match=r"no audio\.fbsp\.fc: wanted AudioCLIP's file with all three towers"):
        published.load(ENTRY, {}, without)
    with pytest.raises(UserError, match=r"audio\.fbsp\.bias is \(129, 2\), wanted is an empty one"):
        published.load(ENTRY, {}, tensors | {"audio.fbsp.bias": np.zeros((129, 2), np.float32)})


def layer(out, *inner, bias=True):
    return {"weight": (out, *inner)} | ({"bias": (out,)} if bias else {})


def norm(width):
    return {name: () if width_axis is None else (width,) for name, width_axis in NORM.items()}


def published_layout() -> dict[str, tuple[int, ...]]:
    """Name -> shape of AudioCLIP-Full-Training.pt, from the published structure alone."""
    found = {"positional_embedding": (77, 512), "text_projection": (512, 1024), "audio.window": (1654,)}
    found |= dict.fromkeys(("logit_scale", "logit_scale_ai", "logit_scale_at"), ())
    found |= {f"audio.fbsp.{name}": (1025,) for name in ("m", "fb", "fc")} | {"audio.fbsp.bias": (0,)}

    def put(name, part):
        found.update({f"{name}.{key}": shape for key, shape in part.items()})

    for tower, groups in (("visual", 1), ("audio", 32)):
        channels = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            planes = 64 << stage
            inner = planes if groups == 1 else 2 * planes
            for block in range(depth):
                name = f"{tower}.layer{stage + 1}.{block}"
                shapes = ((inner, channels, 1, 1), (inner, inner // groups, 3, 3), (4 * planes, inner, 1, 1))
                for number, shape in enumerate(shapes, start=1):
                    put(f"{name}.conv{number}", layer(*shape, bias=False))
                    put(f"{name}.bn{number}", norm(shape[0]))
                if block == 0:
                    put(f"{name}.downsample.0", layer(4 * planes, channels, 1, 1, bias=False))
                    put(f"{name}.downsample.1", norm(4 * planes))
                channels = 4 * planes
    for number, (out, inner) in enumerate(((32, 3), (32, 32), (64, 32)), start=1):
        put(f"visual.conv{number}", layer(out, inner, 3, 3, bias=False))
        put(f"visual.bn{number}", norm(out))
    found["visual.attnpool.positional_embedding"] = (50, 2048)
    for name, out in {"k_proj": 2048, "q_proj": 2048, "v_proj": 2048, "c_proj": 1024}.items():
        put(f"visual.attnpool.{name}", layer(out, 2048))
    for block in range(12):
        name = f"transformer.resblocks.{block}"
        found |= {f"{name}.attn.in_proj_weight": (1536, 512), f"{name}.attn.in_proj_bias": (1536,)}
        put(f"{name}.attn.out_proj", layer(512, 512))
        put(f"{name}.mlp.c_fc", layer(2048, 512))
        put(f"{name}.mlp.c_proj", layer(512, 2048))
        for number in (1, 2):
            put(f"{name}.ln_{number}", layer(512))
    put("token_embedding", layer(49408, 512, bias=False))
    put("ln_final", layer(512))
    put("audio.conv1", layer(64, 3, 7, 7, bias=False))
    put("audio.bn1", norm(64))
    gates = ((64, 256, 3, 1), (256, 512, 1, 5), (512, 1024, 3, 1), (1024, 2048, 1, 5), (2048, 2048, 3, 5))
    for number, (inner, out, rows, columns) in enumerate(gates, start=1):
        put(f"audio.att{number}.conv_depth", layer(inner, 1, rows, columns))
        put(f"audio.att{number}.conv_point", layer(out, inner, 1, 1))
        put(f"audio.att{number}.bn", norm(out))
    put("audio.fc", layer(1024, 2048))
    return found


def test_published_layout_fits_the_full_size(fixture):
    """Every name and shape, both ways; and the numbers of that layout fill the published file but for its names."""
    layout = published_layout()
    config = ENTRY.read_config({}, layout)
    assert config == VARIANTS["audioclip"]
    wanted = published.wanted_shapes(ENTRY, config)
    matches = published.rules.plan(ENTRY.table(config), layout, wanted, "the test")
    assert {match.name for match in matches} == {name for name in layout if not name.endswith(LEFT_OUT)}
    num_bytes = sum(int(np.prod(shape)) * (8 if "batches" in name else 4) for name, shape in layout.items())
    # 861 tensors, and what their names take in an archive of torch's.
    assert 200 * len(layout) < FILE_BYTES - num_bytes < 450 * len(layout)

    def count(tower, without=("mean", "variance", "window")):
        return sum(int(np.prod(x)) for path, x in wanted.items() if path.startswith(tower)
                   and not path.endswith(without))  # fmt: skip

    assert count("image/") == 38_316_896  # CLIP RN50: 102,007,137 in all, as openai publishes it
    assert count("text/") == 102_007_137 - 38_316_896 - 1
    gates = count("audio/gate_")
    # ResNeXt-50 32x4d has 25,028,904 parameters, 2,049,000 of them a layer of 1000 classes.
    assert count("audio/") == 25_028_904 - 2_049_000 + 2048 * 1024 + 1024 + 3 * 1025 + gates == 32_104_771


@pytest.mark.full
def test_the_references_names_are_the_published_ones(root):
    torch = pytest.importorskip("torch")
    made = runpy.run_path(str(root / "tests/fixtures/make_audioclip.py"))
    with torch.device("meta"):
        state = made["AudioCLIP"](**made["FULL"]).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published_layout()


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_equals_the_reference_at_random(root, tmp_path, seed):
    """Wider, with several heads and groups, odd sizes; through a .pt file and `ssu convert`."""
    torch = pytest.importorskip("torch")
    made = runpy.run_path(str(root / "tests/fixtures/make_audioclip.py"))
    more = {"image_width": 8, "audio_width": 4, "groups": 4, "group_width": 2, "text_width": 128, "image_size": 96}
    sizes = made["NARROW"] | more | {"n_fft": 514 if seed == 2 else 256, "audio_depths": (1, 1, 2, 2)}
    model = made["randomize"](made["AudioCLIP"](**sizes), seed)
    given = made["inputs"](seed, sizes)
    theirs = made["features_of"](model, *given)
    torch.save(model.state_dict(), tmp_path / "AudioCLIP.pt")
    source = sources.open_source(tmp_path / "AudioCLIP.pt", tmp_path / "scratch")
    converting.convert(source, tmp_path / "ours", converting.kind_of(source))
    tree, params = pretrained.read_pretrained(tmp_path / "ours", "audioclip")
    config = converting.stored.from_dict(ENTRY.config_type, tree)
    assert (config.image.num_heads, config.text.num_heads, config.audio.groups) == (4, 2, 4)
    config.audio.hop = HOP
    images, ids, sound = (each.numpy() for each in given)
    images = images.transpose(0, 2, 3, 1)
    square = images[:, :, : images.shape[1]]
    ours = published.features_of(audioclip.AudioCLIP(config), {"params": params}, square, ids.astype(np.int32), sound)
    for name, value in ours.items():
        if name == "audio_spectrum":
            assert_close_decibels(value, theirs[name])
        else:
            scale = max(1.0, float(np.abs(theirs[name]).max()))
            np.testing.assert_allclose(value / scale, theirs[name] / scale, atol=1e-4, err_msg=name)
    for positions, name in {"grid": "wide_dense", "released": "wide_released"}.items():
        tower = CLIPResNet(dataclasses.replace(config.image, dense_positions=positions))
        found = published.features_of(tower, {"params": params["image"]}, images)
        np.testing.assert_allclose(found["dense"], theirs[name], atol=1e-4)


@pytest.mark.full
def test_text_tower_equals_transformers(fixture):
    """transformers' names for the same weights: its projections apart, openai's in one."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=33, max_position_embeddings=9, hidden_size=16, num_attention_heads=2, num_hidden_layers=2,
        intermediate_size=64, projection_dim=6, bos_token_id=29, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.CLIPTextModelWithProjection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    ids = torch.tensor([[29, 4, 5, 7, 32, 0, 0, 0, 0], [29, *range(1, 8), 32]])
    with torch.inference_mode():
        wanted = model(ids)
    theirs = {name.removeprefix("text_model."): x.numpy() for name, x in model.state_dict().items()}
    _, tensors = published.read(fixture)
    tensors = {name: x for name, x in tensors.items() if name.startswith(("audio.", "visual.", "logit"))}
    tensors |= openai_names(theirs)
    ours, variables = published.load(ENTRY, {}, tensors)
    tower = audioclip.CLIPText(dataclasses.replace(ours.text, num_heads=2))
    found = published.features_of(tower, {"params": variables["params"]["text"]}, ids.numpy().astype(np.int32))
    np.testing.assert_allclose(found["tokens"], wanted.last_hidden_state.numpy(), atol=2e-5)
    np.testing.assert_allclose(found["embedding"], wanted.text_embeds.numpy(), atol=2e-5)


def openai_names(theirs):
    """A text tower in transformers' names -> in openai's."""
    found = {
        "token_embedding.weight": theirs["embeddings.token_embedding.weight"],
        "positional_embedding": theirs["embeddings.position_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = theirs[f"final_layer_norm.{kind}"]
        for block in range(2):
            here, there = f"transformer.resblocks.{block}", f"encoder.layers.{block}"
            parts = [theirs[f"{there}.self_attn.{name}_proj.{kind}"] for name in ("q", "k", "v")]
            found[f"{here}.attn.in_proj_{kind}"] = np.concatenate(parts)
            pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
                     "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
            found |= {f"{here}.{a}.{kind}": theirs[f"{there}.{b}.{kind}"] for a, b in pairs.items()}
    return {name: np.ascontiguousarray(x) for name, x in found.items()}
