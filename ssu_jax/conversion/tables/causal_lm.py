"""Causal language models: transformers' GPT-2 and Llama folders, and llama2.c's files, which read as Llama's names."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssu_jax.config.encoders.causal_lm import CausalLMConfig
from ssu_jax.conversion import llama2c as llama2c_weights
from ssu_jax.conversion.entry import Arrays, Entry
from ssu_jax.conversion.rules import Ignored, Rule, Shape, Table
from ssu_jax.encoders.causal_lm import CausalLM
from ssu_jax.tokenizer import llama2c, published
from ssu_jax.types import UserError

# transformers' names of activations -> ours.
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
# Kernels of GPT-2 are its "Conv1D": [in, out] already.
GPT2_BLOCK = (
    ("attn.c_attn", "attention/query_key_value"),
    ("attn.c_proj", "attention/out"),
    ("mlp.c_fc", "feed/up"),
    ("mlp.c_proj", "feed/down"),
)
LLAMA_BLOCK = (
    ("self_attn.q_proj", "attention/query"),
    ("self_attn.k_proj", "attention/key"),
    ("self_attn.v_proj", "attention/value"),
    ("self_attn.o_proj", "attention/out"),
    ("mlp.gate_proj", "feed/gate"),
    ("mlp.up_proj", "feed/up"),
    ("mlp.down_proj", "feed/down"),
)


def table(config: CausalLMConfig) -> Table:
    # A head that is the word table is not stored, or stored a second time.
    head = Ignored("lm_head.weight") if config.tied_head else Rule("lm_head.weight", "head/kernel", "dense")
    if config.layout == "llama":
        return (*_llama(), head)
    # transformers writes the prefix; the files of the hub are older and lack it.
    return (*_gpt2("transformer."), *_gpt2(""), head)


def _gpt2(prefix: str) -> Table:
    block, ours = f"{prefix}h.{{i}}", "block_{i}"
    rules = [
        Rule(f"{prefix}wte.weight", "embed/embedding"),
        Rule(f"{prefix}wpe.weight", "position/embedding"),
        *_norm(f"{block}.ln_1", f"{ours}/attention_norm"),
        *_norm(f"{block}.ln_2", f"{ours}/feed_norm"),
        *_norm(f"{prefix}ln_f", "norm"),
        Ignored(f"{block}.attn.bias"),  # the causal mask of old files, and the number it was filled with
        Ignored(f"{block}.attn.masked_bias"),
    ]
    for theirs, path in GPT2_BLOCK:
        rules.append(Rule(f"{block}.{theirs}.weight", f"{ours}/{path}/kernel"))
        rules.append(Rule(f"{block}.{theirs}.bias", f"{ours}/{path}/bias"))
    return tuple(rules)


def _norm(theirs: str, path: str) -> Table:
    return Rule(f"{theirs}.weight", f"{path}/scale"), Rule(f"{theirs}.bias", f"{path}/bias")


def _llama() -> Table:
    block, ours = "model.layers.{i}", "block_{i}"
    return (
        Rule("model.embed_tokens.weight", "embed/embedding"),
        Rule(f"{block}.input_layernorm.weight", f"{ours}/attention_norm/scale"),
        Rule(f"{block}.post_attention_layernorm.weight", f"{ours}/feed_norm/scale"),
        *(Rule(f"{block}.{theirs}.weight", f"{ours}/{path}/kernel", "dense") for theirs, path in LLAMA_BLOCK),
        Rule("model.norm.weight", "norm/scale"),
        Ignored(f"{block}.self_attn.rotary_emb.inv_freq"),
    )


def read_config(said: Mapping[str, Any], shapes: Mapping[str, Shape]) -> CausalLMConfig:
    """Raises UserError for a model of another family, and for one of its forms that this module does not compute."""
    kind = said.get("model_type")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"causal_lm: config.json says model_type {kind!r}, wanted 'gpt2' or 'llama'")
    try:
        config = _gpt2_config(said) if kind == "gpt2" else _llama_config(said)
    except KeyError as error:
        raise UserError(f"causal_lm: config.json lacks {error.args[0]!r}, which a {kind} has") from error
    if config.width % config.num_heads or config.num_heads % config.num_kv_heads:
        raise UserError(
            f"causal_lm: config.json has width {config.width}, {config.num_heads} heads and {config.num_kv_heads} of "
            "keys and values: each must be a multiple of the next"
        )
    return config


def _gpt2_config(said: Mapping[str, Any]) -> CausalLMConfig:
    _refuse(said, {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False})
    return CausalLMConfig(
        layout="gpt2",
        vocab_size=said["vocab_size"],
        depth=said["n_layer"],
        width=said["n_embd"],
        num_heads=said["n_head"],
        num_kv_heads=said["n_head"],
        hidden=said.get("n_inner") or 4 * said["n_embd"],
        positions=said["n_positions"],
        norm_epsilon=said.get("layer_norm_epsilon", 1e-5),
        tied_head=said.get("tie_word_embeddings", True),
        activation=_activation(said.get("activation_function", "gelu_new")),
        start_id=_id(said, "bos_token_id", 50256),
        end_id=_id(said, "eos_token_id", 50256),
    )


def _llama_config(said: Mapping[str, Any]) -> CausalLMConfig:
    _refuse(said, {"attention_bias": False, "mlp_bias": False})
    rope = said.get("rope_parameters") or {}
    scaling = rope.get("rope_type", "default") if rope else (said.get("rope_scaling") or {}).get("rope_type", "default")
    if scaling != "default":
        raise UserError(f"causal_lm: config.json asks for rotary positions of type {scaling!r}, wanted 'default'")
    width, heads = said["hidden_size"], said["num_attention_heads"]
    if (said.get("head_dim") or width // heads) * heads != width:
        raise UserError(f"causal_lm: config.json has heads of {said['head_dim']} numbers, wanted {width} / {heads}")
    layout, start = said.get("rope_layout", "halves"), _id(said, "bos_token_id", 1)
    # llama2.c knows one special id: it stops where its start token comes again (run.c).
    end = start if layout == "interleaved" else _id(said, "eos_token_id", 2)
    return CausalLMConfig(
        layout="llama",
        vocab_size=said["vocab_size"],
        depth=said["num_hidden_layers"],
        width=width,
        num_heads=heads,
        num_kv_heads=said.get("num_key_value_heads") or heads,
        hidden=said["intermediate_size"],
        positions=said["max_position_embeddings"],
        norm_epsilon=said.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta", said.get("rope_theta", 10000.0))),
        rope_layout=layout,
        tied_head=said.get("tie_word_embeddings", False),
        activation=_activation(said.get("hidden_act", "silu")),
        start_id=start,
        end_id=end,
    )


def _refuse(said: Mapping[str, Any], wanted: Mapping[str, bool]) -> None:
    for name, value in wanted.items():
        if said.get(name, value) != value:
            raise UserError(f"causal_lm: config.json sets {name} to {said[name]}, only {value} is supported")


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise UserError(f"causal_lm: config.json names the activation {name!r}, wanted one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _id(said: Mapping[str, Any], name: str, default: int) -> int:
    """A special id; where several may end a text, the first; within the vocabulary."""
    value = said.get(name)
    value = value[0] if isinstance(value, list | tuple) else value
    return min(default if value is None else int(value), said["vocab_size"] - 1)


def write_config(config: CausalLMConfig) -> dict[str, Any]:
    shared = {"bos_token_id": config.start_id, "eos_token_id": config.end_id, "tie_word_embeddings": config.tied_head}
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    if config.layout == "gpt2":
        return shared | {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": config.vocab_size,
            "n_layer": config.depth,
            "n_embd": config.width,
            "n_head": config.num_heads,
            "n_inner": config.hidden,
            "n_positions": config.positions,
            "layer_norm_epsilon": config.norm_epsilon,
            "activation_function": activation,
        }
    return shared | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.depth,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "intermediate_size": config.hidden,
        "max_position_embeddings": config.positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_layout": config.rope_layout,
        "hidden_act": activation,
    }


def example(config: CausalLMConfig, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return (rng.integers(0, config.vocab_size, (2, min(12, config.positions))).astype(np.int32),)


def reference(folder: pathlib.Path, arguments: tuple[np.ndarray, ...]) -> Arrays:
    """transformers' hidden states and logits, named as ours."""
    import torch

    model = _model_of_folder(folder) if folder.is_dir() else _model_of_llama2c(folder)
    last = []  # it keeps its last hidden state after the norm alone
    layers = model.transformer.h if model.config.model_type == "gpt2" else model.model.layers
    layers[-1].register_forward_hook(lambda module, inputs, out: last.append(out if torch.is_tensor(out) else out[0]))
    with torch.no_grad():
        outputs = model(torch.from_numpy(arguments[0].astype(np.int64)), output_hidden_states=True)
    embedding, *blocks, hidden = (state.numpy() for state in outputs.hidden_states)
    features = {f"block_{number}": block for number, block in enumerate([*blocks, last[0].numpy()])}
    return {"embedding": embedding, **features, "hidden": hidden, "logits": outputs.logits.numpy()}


def _model_of_folder(folder: pathlib.Path) -> Any:
    import torch
    import transformers

    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = transformers.GPT2LMHeadModel if said["model_type"] == "gpt2" else transformers.LlamaForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _model_of_llama2c(path: pathlib.Path) -> Any:
    """transformers' Llama with llama2.c's weights: what makes queries and keys is put in the order of halves."""
    import torch
    import transformers

    source = llama2c_weights.open_file(path)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**source.config)).eval()
    state = {name: torch.from_numpy(_in_halves(name, tensor.read(), source.config["head_dim"]))
             for name, tensor in source.tensors.items()}  # fmt: skip
    absent, unknown = model.load_state_dict(state, strict=False)
    if unknown or set(absent) - {"lm_head.weight"}:
        raise UserError(f"causal_lm: transformers' Llama and {path} name other tensors: {[*absent, *unknown]}")
    return model


def _in_halves(name: str, kernel: np.ndarray, head_width: int) -> np.ndarray:
    """[h (k/2 2), in] -> [h (2 k/2), in] for queries and keys; others as they are."""
    if "q_proj" not in name and "k_proj" not in name:
        return kernel.copy()
    heads = kernel.reshape(-1, head_width // 2, 2, kernel.shape[1])
    return heads.transpose(0, 2, 1, 3).reshape(kernel.shape)


def tokenizer(place: pathlib.Path) -> str:
    """A folder's tokenizer.json, or one made of GPT-2's vocab.json and merges.txt, or of a llama2.c vocabulary."""
    if place.is_dir():
        return published.read_folder(place)
    return llama2c.to_json(place) if place.suffix == ".bin" else published.read_file(place)


def caveat(config: CausalLMConfig) -> str:
    if config.layout != "llama" or config.rope_layout == "halves":
        return ""
    return ("rotary positions turn llama2.c's pairs (rope_layout 'interleaved' in config.json), which transformers "
            "does not look at: it would compute another model from these files")  # fmt: skip


ENTRY = Entry(
    kind="causal_lm",
    table=table,
    read_config=read_config,
    write_config=write_config,
    build=lambda config: CausalLM(config, block_features=True),
    example=example,
    reference=reference,
    tokenizer=tokenizer,
    config_type=CausalLMConfig,
    caveat=caveat,
)
