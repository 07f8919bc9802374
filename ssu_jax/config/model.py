"""SSUFormer's sizes and switches. Layers and encoders see only their own small dataclass."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class VisualEncoderConfig:
    """Four feature maps at strides 4, 8, 16, 32."""

    kind: str = option("pyramid", "own small pyramid, or PVT-v2", choices=("pyramid", "pvt_v2"))
    stem_width: int = option(16, "pyramid: channels of the stride-2 stem", low=1)
    widths: tuple[int, ...] = option((32, 64, 128, 128), "pyramid: channels of the four maps", low=1)
    depths: tuple[int, ...] = option((1, 2, 2, 1), "pyramid: residual blocks of the four stages", low=1)
    variant: str = option("b5", "pvt_v2: its size, b0 to b5 or b2_linear; b5_authors and so on for weights with keys "
                             "and values in one matrix (the authors' files, timm's)")  # fmt: skip
    weights: str = option("", "pvt_v2: folder made by `ssu convert`, read when training begins; else random")
    remat: bool = option(False, "compute blocks again in the backward pass instead of keeping their activations")


@dataclasses.dataclass
class AudioEncoderConfig:
    """A convolution stack on one 96 x 64 log-mel patch a second."""

    kind: str = option("patches", "own small stack, or VGGish", choices=("patches", "vggish"))
    widths: tuple[int, ...] = option(
        (32, 64, 96), "patches: channels of the stages, at strides 4, 8 and 16 of time and mel", low=1
    )
    variant: str = option("torch", "vggish: which of its published forms, torch (a ReLU at the end) or google")
    weights: str = option("", "vggish: folder made by `ssu convert`, read when training begins; else random")


@dataclasses.dataclass
class CLIPPartsConfig:
    """CLIP in mask collaboration and region-caption consistency, where model.region_encoder asks for it."""

    variant: str = option("vit_b_16", "its size: vit_b_32, vit_b_16, vit_l_14 or vit_l_14_336")
    weights: str = option("", "folder made by `ssu convert`, read when training begins; else random. Its tokenizer "
                              "makes the ids of the text tower")  # fmt: skip
    remat: bool = option(False, "compute blocks again in the backward pass instead of keeping their activations")


@dataclasses.dataclass
class MoEConfig:
    """Mixture of hierarchical-prompted experts (our design; the authors published name and purpose)."""

    num_experts: int = option(4, "experts of a block; 1 is the dense model", low=1, high=4096)
    top_k: int = option(1, "experts a token visits", low=1, high=64)
    hidden: int = option(256, "hidden width of one expert", low=1)
    capacity_factor: float = option(1.5, "slots of an expert over its even share, in training", low=0.1, high=64.0)
    dispatch: str = option("gather", "how tokens reach experts: into slots by indices (gather) or one-hot products "
                                     "(einsum), sorted and dropless (blocks for a CPU, ragged for a TPU), or all to "
                                     "all of them (dense, the oracle)",
                           choices=("gather", "einsum", "blocks", "ragged", "dense"))  # fmt: skip
    transport: str = option("none", "how tokens reach the devices of their experts; ragged wants a TPU or GPU",
                            choices=("none", "all_to_all", "ring", "ragged"))  # fmt: skip
    dropless: bool = option(False, "drop no token in training, whatever the capacity factor")
    priority: bool = option(False, "the surest tokens stand first in line for an expert's slots, not the earliest")
    choice: str = option("tokens", "in training tokens choose experts, or experts choose tokens (of a sentence also "
                                   "later words; at most 4 top_k experts a token)",
                         choices=("tokens", "experts"))  # fmt: skip
    router_noise: float = option(0.0, "deviation of the noise on the logits in training, times the number of experts",
                                 low=0.0, high=100.0)  # fmt: skip
    balancing_rate: float = option(0.0, "a step's change of the bias by which experts with too few tokens are chosen "
                                        "more often, outside the loss (losses.balance may then be 0); 1e-3 is usual, "
                                        "0 is off", low=0.0, high=1.0)  # fmt: skip
    forced_routing: str = option("none", "for benchmarks: experts that training takes instead of the router's",
                                 choices=("none", "uniform", "zipf"))  # fmt: skip
    two_step: bool = option(False, "the scene picks the expert group, region and frame pick inside it")
    num_groups: int = option(2, "expert groups of the two-step choice", low=1)
    groups_per_token: int = option(1, "groups that a token of the two-step choice can reach", low=1)
    prompt_tokens: int = option(2, "prompt tokens of each level", low=1, high=64)


@dataclasses.dataclass
class LanguageModelConfig:
    """The language-model expert: a causal LM that joins through a gate on the next-token distribution."""

    enabled: bool = option(True, "use it (only with MoHE)")
    kind: str = option("own", "a small one trained along, or a published one", choices=("own", "gpt2", "llama"))
    layers: int = option(1, "own: transformer blocks", low=1)
    width: int = option(64, "own: width", low=8)
    variant: str = option("gpt2", "published: its size, gpt2, distilgpt2, gpt2_medium or gpt2_large; of kind llama "
                                  "smollm2_135m, smollm2_360m or stories260k")  # fmt: skip
    weights: str = option("", "published: folder made by `ssu convert`, read when training begins; else random. Its "
                              "tokenizer makes the ids of the sentences")  # fmt: skip
    remat: bool = option(False, "published: compute blocks again in the backward pass instead of keeping activations")
    gate_threshold: float = option(0.05, "below it the LM is skipped at inference", low=0.0, high=1.0)


@dataclasses.dataclass
class ModelConfig:
    """Widths, depths and the switches that give every row of the paper's tables."""

    dtype: str = option("float32", "type of the computation; parameters stay float32",
                        choices=("float32", "bfloat16"))  # fmt: skip
    scan_blocks: bool = option(False, "run the blocks of a published encoder as one loop over their parameters: "
                                      "compiles in a fraction of the time, for a copy of them")  # fmt: skip
    width: int = option(128, "token width", low=8)
    num_heads: int = option(4, "attention heads", low=1)
    mlp_ratio: float = option(2.0, "hidden width of a feed-forward block over its width", low=0.5, high=16.0)
    pixel_width: int = option(48, "channels of the pixel embedding", low=4)
    num_queries: int = option(4, "learned audio queries a frame", low=1, high=1024)
    query_layers: int = option(1, "rounds of the query token generator", low=1)
    mask_form: str = option("single", "one mask a frame, the union of the queries, or a class and a mask for every "
                                      "query (set prediction)", choices=("single", "multi"))  # fmt: skip
    region_encoder: str = option("cells", "how MCM looks under the mask: own small cells, CLIP on the masked frame, or "
                                          "CLIP features of the whole frame pooled under the mask",
                                 choices=("cells", "clip_masked", "clip_pooled"))  # fmt: skip
    region_tokens: int = option(48, "cells: most cells under the mask that become region tokens", low=1)
    visual_skip: bool = option(False, "the words also see the visual tokens as they were before fusion (figure: the "
                                      "dashed line)")  # fmt: skip
    fusion_layers: int = option(2, "rounds of multi-modality integration (MMI)", low=1)
    text_layers: int = option(2, "blocks of the text decoder", low=1)
    text_remat: bool = option(False, "compute the text decoder's blocks again in the backward pass; what experts have "
                                     "exchanged is kept, so that it travels once")  # fmt: skip
    embedding_width: int = option(64, "width of the region and text embeddings of RCC", low=4)
    vocab_size: int = option(160, "rows of the word table; the tokenizer may fill fewer", low=8)
    tied_head: bool = option(False, "the word table is also the output layer: half the weights of a large vocabulary")
    smallest_mask: float = option(0.002, "share of the frame below which a mask is a speck: emptied at inference",
                                  low=0.0, high=1.0)  # fmt: skip
    beam_size: int = option(1, "sentences kept while a frame is described; 1 takes the likeliest word each time",
                            low=1, high=64)  # fmt: skip
    length_penalty: float = option(0.0, "beam search: exponent of the length that log-probabilities are divided by; "
                                        "0 takes the likeliest sentence", low=0.0, high=2.0)  # fmt: skip
    seg_only: bool = option(False, "SSU-S: masks only")
    text_only: bool = option(False, "SSU-D: sentences only")
    mcm: bool = option(True, "mask collaboration: region tokens under the mask feed the text decoder")
    rcc: bool = option(True, "region-caption consistency")
    mohe: bool = option(True, "mixture of experts with hierarchical prompts; off is AVUFormer")
    visual: VisualEncoderConfig = dataclasses.field(default_factory=VisualEncoderConfig)
    audio: AudioEncoderConfig = dataclasses.field(default_factory=AudioEncoderConfig)
    clip: CLIPPartsConfig = dataclasses.field(default_factory=CLIPPartsConfig)
    moe: MoEConfig = dataclasses.field(default_factory=MoEConfig)
    language_model: LanguageModelConfig = dataclasses.field(default_factory=LanguageModelConfig)
