"""The nouns of the project, the key of axis letters, and the error a user can mend.

Key of letters, the same in every docstring, annotation and einsum:

    b batch          t frame (one a second)   y x rows and columns   c channels
    n visual tokens  a audio tokens           q mask queries         l text positions
    v vocabulary     d width                  h heads                k head width
    g token groups   s tokens in a group      e experts              p slots of an expert
    m mel frames of one second (96)           f mel bands (64)       u source classes

The way of the data:

    video file -> Clip -> Example (one TFRecord) -> Batch -> Outputs -> losses -> TrainState
                                                   Outputs -> Prediction -> scores, pictures

Batch, Mixtures, Outputs and TrainState are named tuples of bare arrays: JAX takes named tuples for pytrees by
itself, so this module needs no JAX, and nothing checks a field when a tree holds shardings or shapes.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

MASK_THRESHOLD = 0.5  # a pixel whose probability is above it sounds
KNOWN_FLAGS = ("masks_known", "captions_known", "sources_known")  # of a Clip


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wanted, what was got, where, what to do.

    The command line prints it without a traceback and exits with `exit_code` (2: a user's mistake,
    1: a check failed, 77: numeric budget spent, 78: data budget or manifest, 79: no usable checkpoint).
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


@dataclasses.dataclass(frozen=True)
class SoundObject:
    """One object of a clip that sounds in some second or stands silent beside one that does.

    name:      class name, e.g. "bell".
    sounding:  bool [t], whether it sounds for at least half of that second.
    on_screen: False for a source that is heard and never seen; `masks` is then None.
    masks:     bool [t, y, x], its visible pixels, occlusion taken off, whether it sounds or not.
    boxes:     float32 [t, 4], left, top, right, bottom as shares of the frame, NaN in a frame without one; for sets
               that have boxes and no masks.
    """

    name: str
    sounding: np.ndarray
    on_screen: bool = True
    masks: np.ndarray | None = None
    boxes: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Clip:
    """A sample before batching: pictures, sound and, where known, what sounds where.

    frames:      uint8 [t, y, x, 3], RGB; frame t is from the middle of second t.
    frame_times: float64 [t], seconds.
    sound:       int16 [samples], mono.
    valid:       bool [t], False for padding beyond the end of the clip.
    captions:    one sentence a frame, "" where nothing in the picture sounds.

    Sets differ in what was annotated. Three flags a frame, bool [t], all True unless given, say what is known:
    masks_known (else the masks of that frame say nothing), captions_known (else "" is no silence), sources_known
    (else `sounding` says nothing; that the class is in the clip still holds).
    """

    id: str
    frames: np.ndarray
    frame_times: np.ndarray
    sound: np.ndarray
    sample_rate: int
    valid: np.ndarray
    captions: tuple[str, ...]
    objects: tuple[SoundObject, ...] = ()
    dataset: str = ""
    major: str = ""
    category: str = ""
    masks_known: np.ndarray | None = None
    captions_known: np.ndarray | None = None
    sources_known: np.ndarray | None = None

    def __post_init__(self):
        for name in KNOWN_FLAGS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.ones(len(self.valid), bool))

    @property
    def sounding_masks(self) -> np.ndarray:
        """bool [t, y, x]: the union of the pixels that sound in each frame."""
        union = np.zeros(self.frames.shape[:3], bool)
        for item in self.objects:
            if item.masks is not None:
                union |= item.masks & item.sounding[:, None, None]
        return union


class Batch(NamedTuple):
    """What the model and the losses see. NumPy from the pipeline, JAX arrays inside a step.

    Labels that a data set lacks are marked unknown (-1, or False in the flags) and cost nothing.
    """

    frames: Any  # uint8 [b, t, y, x, 3]
    log_mel: Any  # float32 [b, t, m, f], one 0.96 s patch a second
    frame_valid: Any  # bool [b, t]
    masks: Any  # uint8 [b, t, y, x], 1 where a pixel sounds
    text_ids: Any  # int32 [b, t, l]: [BOS] sentence [EOS] [PAD]...; a silent frame is [BOS] [EOS]
    source_labels: Any  # uint8 [b, t, u], classes that sound in the picture
    audible_labels: Any  # uint8 [b, t, u], classes that sound, off screen included
    semantic: Any  # int8 [b, t, y, x]: 0 background, 1 + class, -1 unknown; silent objects too
    scene_label: Any  # int32 [b], class of the clip, -1 unknown
    record: Any  # int32 [b], number of the record in its split
    clip_text_ids: Any  # int32 [b, t, 77], the sentences in CLIP's ids; [b, t, 0] where its tokenizer is not at hand
    mask_known: Any  # bool [b, t], False in frames that are not valid too
    text_known: Any  # bool [b, t], likewise
    source_known: Any  # bool [b, t], likewise; of source_labels and audible_labels


class Mixtures(NamedTuple):
    """Several sources made one, which T-VSL is to take apart: k square pictures side by side, their sounds summed.

    In rows that fill up a batch every source is -1.
    """

    pictures: Any  # uint8 [b, y, x, 3], x = k y
    sound: Any  # float32: [b, samples] in [-1, 1], or [b, t, m, f] log-mel patches, as the encoder wants
    sources: Any  # int32 [b, k], the class that sounds in each picture, from the left; all differ
    regions: Any  # uint8 [b, k, y, x], 1 where that source is, in the joined picture
    region_known: Any  # bool [b, k], else `regions` says nothing of the source
    present: Any  # uint8 [b, u], classes that are seen or heard, silent objects too, as far as is known
    record: Any  # int32 [b, k], numbers of the records


class Outputs(NamedTuple):
    """What SSUFormer returns. A part switched off is None.

    Auxiliary logits exist for their losses (and for a look inside); prediction needs the first two.
    """

    mask_logits: Any  # float32 [b, t, y, x], at the input's size
    text_logits: Any  # float32 [b, t, l, v]: position l predicts token l + 1
    scene_logits: Any = None  # float32 [b, u]
    audible_logits: Any = None  # float32 [b, t, u]
    semantic_logits: Any = None  # float32 [b, t, y / 4, x / 4, u + 1]
    query_class_logits: Any = None  # float32 [b, t, q, u + 1], "no object" last (multi-mask form)
    query_mask_logits: Any = None  # float32 [b, t, q, y / 4, x / 4] (multi-mask form)
    region_embedding: Any = None  # float32 [b, t, d], unit length: the masked region (RCC)
    text_embedding: Any = None  # float32 [b, t, d], unit length: the reference sentence (RCC)
    embedding_scale: Any = None  # float32 [], temperature of the contrastive term
    lm_logits: Any = None  # float32 [b, t, l, v]: the language-model expert alone
    router: Any = None  # dict of layers/moe/losses.py's statistics, stacked over the decoder's blocks


class TrainState(NamedTuple):
    """All that training carries from step to step, and all that a checkpoint holds."""

    step: Any  # int32 []: the data position, and the source of every random key
    params: Any
    ema_params: Any  # of what learns: a frozen leaf is in `params` alone
    opt_state: Any  # likewise
    skipped_steps: Any  # int32 []: updates refused because something was not finite
    skipped_in_row: Any  # int32 []


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Masks and sentences of one clip or video, at the size they were asked for.

    mask_probabilities: float32 [t, y, x].  captions: one a frame, "" in silence.
    """

    mask_probabilities: np.ndarray
    captions: tuple[str, ...]

    @property
    def masks(self) -> np.ndarray:
        """bool [t, y, x] at MASK_THRESHOLD."""
        return self.mask_probabilities > MASK_THRESHOLD
