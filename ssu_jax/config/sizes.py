"""Named sizes of the model."""

from ssu_jax.config import Config, published_classes


def nano() -> Config:
    """96 x 96, own small encoders: laptop CPU, tests, quick start. All defaults."""
    return Config()


def tiny() -> Config:
    """A nano that compiles and steps in seconds, for tests: learns nothing of use."""
    config = Config(name="tiny")
    config.data.image_size = 32
    config.data.num_frames, config.data.train_seconds = 4, 0
    config.data.max_text_tokens = 28
    config.model.width, config.model.num_heads = 16, 2
    config.model.pixel_width, config.model.num_queries = 8, 2
    config.model.fusion_layers = config.model.text_layers = 1
    config.model.embedding_width = 8
    config.model.visual.stem_width, config.model.visual.widths = 4, (4, 8, 8, 8)
    config.model.audio.widths = (4, 4, 8)
    config.model.moe.hidden = 16
    config.model.language_model.width = 8
    return config


def small() -> Config:
    """224 x 224, PVT-v2-B1, 256 wide, everything else our own and trained along: one GPU."""
    config = Config(name="small")
    config.data.image_size = 224
    model, train = config.model, config.train
    model.width, model.num_heads, model.pixel_width = 256, 8, 128
    model.num_queries, model.fusion_layers, model.text_layers = 8, 3, 4
    model.region_tokens, model.vocab_size = 96, 4096
    model.visual.kind, model.visual.variant = "pvt_v2", "b1"
    model.moe.hidden, model.moe.prompt_tokens = 512, 4
    model.language_model.width, model.language_model.layers = 256, 2
    train.learning_rate, train.num_steps, train.batch_size = 3e-4, 20000, 16
    train.backbone_learning_rate, train.ema_decay = 0.1, 0.9998
    return config


def base() -> Config:
    """The paper's model: PVT-v2-B5, VGGish and CLIP ViT-B/16 at 224 x 224, 319.62 M parameters to within 2 %.

    The language-model expert (GPT-2) and CLIP's text tower are counted apart. Encoders without published weights are
    random: `model.*.weights` name folders made by `ssu convert`. What the paper leaves open is our choice.
    """
    config = small()
    config.name = "base"
    config.data.train_seconds = 0
    model, losses, train = config.model, config.losses, config.train
    model.width, model.mlp_ratio, model.pixel_width = 512, 2.0, 256
    model.num_queries, model.query_layers, model.text_layers = 32, 2, 5
    model.visual.variant, model.visual.remat = "b5", True
    model.audio.kind = "vggish"
    model.region_encoder, model.visual_skip = "clip_masked", True
    model.moe.num_experts, model.moe.hidden, model.moe.prompt_tokens = 4, 512, 2
    model.language_model.kind, model.vocab_size, model.tied_head = "gpt2", 50261, True
    # The encoders are pre-trained: no auxiliary labels, and no collapse to keep embeddings from.
    losses.contrastive = losses.semantic = losses.audible = losses.language_model = 0.0
    train.learning_rate, train.batch_size, train.weight_decay = 1e-4, 8, 0.05
    train.freeze = ("audio_encoder/vggish/*", "clip_vision/*", "clip_text/*", "text_decoder/lm/model/*")
    return config


def trio() -> Config:
    """The small trio under T-VSL, on single seconds of the made world."""
    config = nano()
    config.name, config.family = "trio", "trio"
    config.data.train_seconds = 1
    config.train.batch_size, config.train.num_steps, config.train.learning_rate = 64, 400, 2e-3
    config.train.warmup_steps, config.train.picture_every_steps = 50, 0
    config.train.init_from = "shipped:nano"
    config.eval.every_steps, config.eval.batch_size = 100, 16
    return config


def tvsl() -> Config:
    """T-VSL on the small trio and duets of the made world; `train.init_from` names the trio's run."""
    config = nano()
    config.name, config.family = "tvsl", "tvsl"
    config.train.batch_size, config.train.num_steps, config.train.learning_rate = 32, 300, 1e-3
    config.train.warmup_steps, config.train.weight_decay, config.train.picture_every_steps = 20, 0.0, 0
    config.train.freeze = ("trio",)
    config.eval.every_steps, config.eval.batch_size, config.eval.num_clips = 100, 32, 128
    return config


def tvsl_audioclip() -> Config:
    """T-VSL at the size of its paper: AudioCLIP, 224 x 224, 5 s at 44.1 kHz."""
    config = tvsl()
    config.name = "tvsl_audioclip"
    config.data.image_size, config.data.sample_rate, config.data.classes = 224, 44100, published_classes.vgg_ss()
    config.data.other_classes = "passed_over"  # VGGSound has 309
    config.tvsl.trio, config.tvsl.sound_seconds = "audioclip", 5
    train = config.train
    train.batch_size, train.num_steps, train.learning_rate, train.warmup_steps = 256, 60000, 1e-2, 0
    train.final_learning_rate = 0.0
    return config


def late_fusion() -> Config:
    """YAMNet and DeepLabV3 joined by a class map: 513 x 513, published weights, nothing to train."""
    config = Config(name="late_fusion", family="late_fusion")
    config.data.image_size, config.data.log_offset = config.late_fusion.image_size, 0.001
    config.eval.batch_size = 1
    return config
