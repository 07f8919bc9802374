"""CLIP: the layout of transformers (CLIPModel, CLIPVisionModelWithProjection, CLIPTextModelWithProjection)."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.clip import ACTIVATIONS, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from ssu_jax.conversion.entry import Arrays, Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table
from ssu_jax.encoders.clip import CLIP, LOGIT_SCALE
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.types import UserError

HEAD_WIDTH = 64  # of every published tower, where no config says how many heads there are
NORMS = (("layer_norm1", "norm_1"), ("layer_norm2", "norm_2"))
DENSES = (
    *((f"self_attn.{theirs}", f"attention/{ours}")
      for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"))),
    ("mlp.fc1", "mlp/fc1"),
    ("mlp.fc2", "mlp/fc2"),
)  # fmt: skip


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")]


def _blocks(tower: str) -> list[Rule]:
    theirs, ours = f"{tower}_model.encoder.layers.{{i}}", f"{tower}/block_{{i}}"
    rules = [rule for a, b in NORMS for rule in _norm(f"{theirs}.{a}", f"{ours}/{b}")]
    for a, b in DENSES:
        rules.append(Rule(f"{theirs}.{a}.weight", f"{ours}/{b}/kernel", "dense"))
        rules.append(Rule(f"{theirs}.{a}.bias", f"{ours}/{b}/bias"))
    return rules


VISION = (
    Rule("vision_model.embeddings.class_embedding", "vision/class_token"),
    Rule("vision_model.embeddings.patch_embedding.weight", "vision/patch/kernel", "conv"),
    Rule("vision_model.embeddings.position_embedding.weight", "vision/positions"),
    Ignored("vision_model.embeddings.position_ids"),
    *_norm("vision_model.pre_layrnorm", "vision/pre_norm"),  # so misspelt in every published file
    *_blocks("vision"),
    *_norm("vision_model.post_layernorm", "vision/post_norm"),
    Rule("visual_projection.weight", "vision/projection/kernel", "dense"),
)
TEXT = (
    Rule("text_model.embeddings.token_embedding.weight", "text/token/embedding"),
    Rule("text_model.embeddings.position_embedding.weight", "text/positions"),
    Ignored("text_model.embeddings.position_ids"),
    *_blocks("text"),
    *_norm("text_model.final_layer_norm", "text/final_norm"),
    Rule("text_projection.weight", "text/projection/kernel", "dense"),
)
TABLES: dict[str, Table] = {
    "vision": VISION,
    "text": TEXT,
    "both": (*VISION, *TEXT, Rule("logit_scale", "logit_scale")),
}


def read_config(published: Mapping[str, Any], shapes: Mapping[str, Shape]) -> CLIPConfig:
    """What config.json says; what it leaves out is read off the shapes.

    Raises UserError for a layout without these names, a tower without its projection, and an unknown activation.
    """
    if "visual.conv1.weight" in shapes or any(".attn.in_proj_weight" in name for name in shapes):
        raise UserError(
            "clip: these are openai's own names, with fused projections: wanted transformers' CLIPModel "
            "(AudioCLIP's file is of --kind audioclip)"
        )
    found = [tower for tower in ("vision", "text") if any(name.startswith(f"{tower}_model.") for name in shapes)]
    if not found:
        raise UserError(
            "clip: no tensor of vision_model. or text_model.: wanted a folder of transformers' CLIPModel, "
            "CLIPVisionModelWithProjection or CLIPTextModelWithProjection"
        )
    for tower, projection in (("vision", "visual_projection.weight"), ("text", "text_projection.weight")):
        if tower in found and projection not in shapes:
            raise UserError(f"clip: the {tower} tower comes without {projection}: save it with its projection")
    config = CLIPConfig(towers="both" if len(found) == 2 else found[0])
    whole = "vision_config" in published or "text_config" in published
    shared = {"projection_dim": published["projection_dim"]} if whole and "projection_dim" in published else {}
    for tower, read in (("vision", _vision), ("text", _text)):
        if tower in found:
            # Where both are there transformers lets the one called dict speak; older published folders have both.
            stated = published.get(f"{tower}_config_dict") or published.get(f"{tower}_config") or {}
            setattr(config, tower, read((dict(stated) if whole else dict(published)) | shared, shapes))
    return config


def _vision(stated: dict[str, Any], shapes: Mapping[str, Shape]) -> CLIPVisionConfig:
    common = _common("vision", stated, shapes)
    (patch,) = {int(side) for side in shapes["vision_model.embeddings.patch_embedding.weight"][2:]}
    places = shapes["vision_model.embeddings.position_embedding.weight"][0] - 1
    return CLIPVisionConfig(
        image_size=_side(stated.get("image_size") or math.isqrt(places) * patch),
        patch_size=_side(stated.get("patch_size") or patch),
        embedding_width=int(stated.get("projection_dim") or shapes["visual_projection.weight"][0]),
        **common,
    )


def _text(stated: dict[str, Any], shapes: Mapping[str, Shape]) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=int(stated.get("vocab_size") or shapes["text_model.embeddings.token_embedding.weight"][0]),
        length=int(
            stated.get("max_position_embeddings") or shapes["text_model.embeddings.position_embedding.weight"][0]
        ),
        embedding_width=int(stated.get("projection_dim") or shapes["text_projection.weight"][0]),
        end_id=int(stated.get("eos_token_id") or CLIPTextConfig().end_id),
        **_common("text", stated, shapes),
    )


def _common(tower: str, stated: dict[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """What both towers' configs say."""
    layers = f"{tower}_model.encoder.layers."
    numbers = {int(name[len(layers) :].split(".")[0]) for name in shapes if name.startswith(layers)}
    hidden, width = shapes[f"{layers}0.mlp.fc1.weight"]
    width = int(stated.get("hidden_size") or width)
    activation = stated.get("hidden_act") or ACTIVATIONS[0]
    if activation not in ACTIVATIONS:
        raise UserError(f"clip: the activation of the {tower} tower is {activation!r}: wanted {', '.join(ACTIVATIONS)}")
    return {
        "width": width,
        "depth": int(stated.get("num_hidden_layers") or max(numbers) + 1),
        "num_heads": int(stated.get("num_attention_heads") or width // HEAD_WIDTH),
        "hidden": int(stated.get("intermediate_size") or hidden),
        "activation": activation,
        "norm_epsilon": float(stated.get("layer_norm_eps") or 1e-5),
    }


def _side(value: int | list | tuple) -> int:
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1:
        raise UserError(f"clip: wanted square images and patches, got {value}")
    return int(sides.pop())


def write_config(config: CLIPConfig) -> dict[str, Any]:
    """A config.json for the class of transformers that has these towers."""
    vision, text = config.vision, config.text
    parts = {
        "vision": {"image_size": vision.image_size, "patch_size": vision.patch_size, "num_channels": 3},
        "text": {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.length,
            "bos_token_id": min(49406, text.vocab_size - 1),
            "eos_token_id": text.end_id,
        },
    }
    for tower, part in parts.items():
        its = getattr(config, tower)
        part |= {
            "model_type": f"clip_{tower}_model",
            "hidden_size": its.width,
            "intermediate_size": its.hidden,
            "num_hidden_layers": its.depth,
            "num_attention_heads": its.num_heads,
            "projection_dim": its.embedding_width,
            "hidden_act": its.activation,
            "layer_norm_eps": its.norm_epsilon,
        }
    if config.towers != "both":
        return {"architectures": [f"CLIP{config.towers.title()}ModelWithProjection"], **parts[config.towers]}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision.embedding_width,
        "logit_scale_init_value": LOGIT_SCALE,
        "text_config": parts["text"],
        "vision_config": parts["vision"],
    }


def example(config: CLIPConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Two images of the config's size and three rows of ids, the end at another place in each."""
    side, text = config.vision.image_size, config.text
    images = rng.standard_normal((2, side, side, 3)).astype(np.float32)
    end = text.vocab_size - 1 if text.end_id >= text.vocab_size or text.end_id == 2 else text.end_id
    ids = rng.integers(3, max(end, 4), (3, text.length)).astype(np.int32)
    for row, place in enumerate((1, text.length // 2, text.length - 1)):
        ids[row, place], ids[row, place + 1 :] = end, 0
    return images, ids


def reference(folder: pathlib.Path, inputs: tuple[np.ndarray, ...]) -> Arrays:
    """The same features from transformers; "vision_dense", which it does not return, from its layers."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    by_type = {
        "clip": transformers.CLIPModel,
        "clip_vision_model": transformers.CLIPVisionModelWithProjection,
        "clip_text_model": transformers.CLIPTextModelWithProjection,
    }
    model = by_type[config.model_type].from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    images, ids = torch.tensor(inputs[0].transpose(0, 3, 1, 2)), torch.tensor(inputs[1]).long()
    features = {}
    with torch.inference_mode():
        for tower, given, projection in (("vision", images, "visual_projection"), ("text", ids, "text_projection")):
            if hasattr(model, f"{tower}_model"):
                part = getattr(model, f"{tower}_model")
                found = part(given, output_hidden_states=True)
                features |= {f"{tower}_block_{i}": x for i, x in enumerate(found.hidden_states[1:])}
                features[f"{tower}_tokens"], features[f"{tower}_pooled"] = found.last_hidden_state, found.pooler_output
                features[f"{tower}_embedding"] = getattr(model, projection)(found.pooler_output)
            if tower == "vision" and hasattr(model, "vision_model"):
                last = part.encoder.layers[-1]
                values = last.self_attn.v_proj(last.layer_norm1(found.hidden_states[-2][:, 1:]))
                features["vision_dense"] = model.visual_projection(part.post_layernorm(last.self_attn.out_proj(values)))
        if config.model_type == "clip":
            features["logits"] = model(input_ids=ids, pixel_values=images).logits_per_image
    return {name: value.numpy() for name, value in features.items()}


def tokenizer(place: pathlib.Path) -> str:
    """tokenizer.json of the folder's, or of its vocab.json and merges.txt, or of the file; "" where there is none."""
    if place.is_dir() and not any((place / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return ""
    return CLIPTokenizer.load(place).to_json()


ENTRY = Entry(
    kind="clip",
    table=lambda config: TABLES[config.towers],
    read_config=read_config,
    write_config=write_config,
    build=CLIP,
    example=example,
    reference=reference,
    tokenizer=tokenizer,
    config_type=CLIPConfig,
)
