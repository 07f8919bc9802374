"""Every option and default, once. One file a section; `sizes` holds the named models.

A config file is a Python file with `get_config()` that returns a `Config`. The command line changes
fields with `--config.section.field=value`; `validate` then checks the whole tree, and from there on it
is treated as frozen (config_flags cannot override frozen dataclasses).
"""

import dataclasses

from ssu_jax.config.data import DataConfig
from ssu_jax.config.encoders import causal_lm
from ssu_jax.config.evaluation import EvalConfig
from ssu_jax.config.late_fusion import LateFusionConfig
from ssu_jax.config.losses import LossConfig
from ssu_jax.config.mesh import MeshConfig, mesh_problems
from ssu_jax.config.model import ModelConfig
from ssu_jax.config.options import option, problems_of
from ssu_jax.config.pretraining import PretrainingConfig
from ssu_jax.config.train import TrainConfig
from ssu_jax.config.tvsl import TVSLConfig
from ssu_jax.config.variants import variant_problems
from ssu_jax.types import UserError

SCHEMA_VERSION = 1
NUM_SPECIAL_IDS = 4  # [PAD] [BOS] [EOS] [UNK], before the words of any vocabulary

__all__ = [
    "SCHEMA_VERSION",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LateFusionConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "PretrainingConfig",
    "TVSLConfig",
    "TrainConfig",
]


@dataclasses.dataclass
class Config:
    """The whole tree."""

    name: str = option("nano", "name of the configuration, printed and stored with checkpoints")
    family: str = option("ssuformer", "which model: ssuformer is trained, pretraining trains its encoders unlabelled, "
                                      "tvsl localizes words, trio trains its small encoders, late_fusion joins "
                                      "published networks",
                         choices=("ssuformer", "pretraining", "tvsl", "trio", "late_fusion"))  # fmt: skip
    schema_version: int = option(SCHEMA_VERSION, "layout of this tree; another one is refused")
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    pretraining: PretrainingConfig = dataclasses.field(default_factory=PretrainingConfig)
    tvsl: TVSLConfig = dataclasses.field(default_factory=TVSLConfig)
    late_fusion: LateFusionConfig = dataclasses.field(default_factory=LateFusionConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def validate(self) -> "Config":
        """Returns self. Raises UserError that lists every field out of range, with what it wants."""
        problems = problems_of(self)
        if self.schema_version != SCHEMA_VERSION:
            problems.insert(
                0, f"schema_version is {self.schema_version}, this version of ssu_jax reads {SCHEMA_VERSION}"
            )
        problems = problems or _contradictions(self)
        if problems:
            raise UserError("config: " + "; ".join(problems))
        return self

    def to_dict(self) -> dict:
        """Plain JSON-able tree; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, tree: dict) -> "Config":
        """The inverse of `to_dict`. Raises UserError for an unknown field or another schema."""
        version = tree.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"config: schema_version is {version}, this version of ssu_jax reads {SCHEMA_VERSION}: "
                "use the ssu_jax version that wrote it, or train anew"
            )
        return _from_dict(cls, tree, "config").validate()


def _contradictions(config: Config) -> list[str]:
    """Options that are each in range and do not go together."""
    data, model, moe, train = config.data, config.model, config.model.moe, config.train
    reachable = moe.num_experts // moe.num_groups * moe.groups_per_token if moe.two_step else moe.num_experts
    tvsl, unknown = config.tvsl, ", ".join(name for name in config.tvsl.held_out if name not in data.classes)
    wrong = {
        "model.seg_only and model.text_only are both set: choose one": model.seg_only and model.text_only,
        f"data.image_size must be a multiple of 32, got {data.image_size}": config.family != "late_fusion"
            and data.image_size % 32,
        f"train.batch_size ({train.batch_size}) must be a multiple of train.grad_accumulation "
        f"({train.grad_accumulation})": train.batch_size % train.grad_accumulation,
        f"model.width ({model.width}) must be a multiple of model.num_heads ({model.num_heads}) and of 4":
            model.width % model.num_heads or model.width % 4,
        f"model.visual.widths and model.visual.depths must hold 4 numbers each, got {model.visual.widths} and "
        f"{model.visual.depths}": len(model.visual.widths) != 4 or len(model.visual.depths) != 4,
        f"model.moe.num_experts ({moe.num_experts}) must be a multiple of model.moe.num_groups ({moe.num_groups})":
            moe.two_step and moe.num_experts % moe.num_groups,
        f"model.moe.top_k ({moe.top_k}) is more than the experts that a token can reach ({reachable})":
            model.mohe and moe.top_k > reachable,
        f"model.moe.groups_per_token ({moe.groups_per_token}) is more than model.moe.num_groups ({moe.num_groups})":
            moe.groups_per_token > moe.num_groups,
        "model.moe.two_step lets tokens choose groups: set model.moe.choice to tokens, or leave two_step out":
            moe.two_step and moe.choice == "experts",
        "model.moe.balancing_rate evens what tokens choose: set model.moe.choice to tokens, or balancing_rate to 0":
            moe.balancing_rate and moe.choice == "experts",
        f"model.moe.transport all_to_all moves slots, which dispatch {moe.dispatch} has none of: take gather":
            moe.transport == "all_to_all" and moe.dispatch == "einsum",
        f"family pretraining contrasts clips: train.batch_size ({train.batch_size}) must be at least 2 x "
        f"train.grad_accumulation ({train.grad_accumulation})": config.family == "pretraining"
            and train.batch_size < 2 * train.grad_accumulation,
        "data.classes names a class twice": len(set(data.classes)) < len(data.classes),
        f"tvsl.held_out names {unknown}, which data.classes does not": unknown,
        "tvsl.trio audioclip hears 44,100 samples a second, got data.sample_rate "
        f"{data.sample_rate}": config.family == "tvsl" and tvsl.trio == "audioclip" and data.sample_rate != 44100,
        f"data.other_classes passed_over is for family tvsl, whose samples are picked; this is {config.family}":
            data.other_classes == "passed_over" and config.family != "tvsl",
        f"family trio trains the small trio: tvsl.trio is {tvsl.trio}":
            config.family == "trio" and tvsl.trio != "small",
    }  # fmt: skip
    problems = [problem for problem, holds in wrong.items() if holds]
    problems += mesh_problems(config.mesh, moe.num_experts)
    return problems + variant_problems(model) + _language_model_problems(config)


def _language_model_problems(config: Config) -> list[str]:
    """A published language model must be one that is known, and our ids and sentences must fit it."""
    model, lm = config.model, config.model.language_model
    if lm.kind == "own" or not lm.enabled or not model.mohe or model.seg_only:
        return []
    known = [name for name, sizes in causal_lm.VARIANTS.items() if sizes.layout == lm.kind]
    if lm.variant not in known:
        return [
            f"model.language_model.variant must be one of {', '.join(known)} for kind {lm.kind}, got {lm.variant!r}"
        ]
    sizes = causal_lm.VARIANTS[lm.variant]
    least = sizes.vocab_size + NUM_SPECIAL_IDS
    wrong = {
        f"model.vocab_size ({model.vocab_size}) must be at least {least}: the {sizes.vocab_size} ids of {lm.variant} "
        f"and our {NUM_SPECIAL_IDS}": model.vocab_size < least,
        f"data.max_text_tokens ({config.data.max_text_tokens}) must be at most {sizes.positions}, the positions of "
        f"{lm.variant}": config.data.max_text_tokens > sizes.positions,
    }  # fmt: skip
    return [problem for problem, holds in wrong.items() if holds]


def _from_dict(cls, tree: dict, where: str):
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(tree) - set(fields))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}, known are {', '.join(sorted(fields))}")
    values = {}
    for name, value in tree.items():
        factory = fields[name].default_factory
        if dataclasses.is_dataclass(factory):
            value = _from_dict(factory, value, f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return cls(**values)
