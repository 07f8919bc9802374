"""The weights that a run begins with where an earlier run is named (`train.init_from`): all that lie at the same path.

They are read once, when a run begins; from there on its checkpoints hold all weights, and the earlier run may be gone.
A pre-training run gives the two encoders, a run of SSUFormer all that it has in common with the new one. Taken are the
averaged weights (EMA), of the best sealed step or the one that is named.
"""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssu_jax import checkpoint
from ssu_jax.config import Config
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.training import parts, stacks, workdir
from ssu_jax.training.published import Published
from ssu_jax.types import UserError

_NUM_NAMED = 3
_SPOKEN = ("text_decoder", "trio/words")  # their rows are words: they come with the vocabulary they were trained with
_TRIO = "trio"  # of T-VSL: it has the encoders of SSUFormer and pre-training, one level down


class Initial(NamedTuple):
    """params: what was taken, under the new model's names.  origin: {"train.init_from": which step}, for the records of
    the new run.  tokenizer: of the words that the weights speak, or None.
    """

    params: dict
    origin: dict[str, str]
    tokenizer: Tokenizer | None


NOTHING = Initial({}, {}, None)


def read(config: Config, shapes: dict) -> Initial:
    """The weights of the earlier run that the new model has a place for; NOTHING where none is named.

    shapes: tree of the new model's parameters or their shapes. Raises UserError: no such checkpoint, nothing in common,
    a parameter of another shape, classes in another order.
    """
    if not config.train.init_from:
        return NOTHING
    place = checkpoint.locate(config.train.init_from)
    earlier, params = checkpoint.read_weights(place)
    wanted = {name: tuple(leaf.shape) for name, leaf in parts.flat(shapes).items()}
    found = stacks.stacked(parts.flat(params), wanted)
    found |= {f"{_TRIO}/{name}": leaf for name, leaf in found.items()}
    taken = {name: leaf for name, leaf in found.items() if name in wanted}
    _check(config, earlier, taken, wanted, str(place))
    spoken = any(parts.is_named(name, _SPOKEN) for name in taken)
    tokenizer = Tokenizer.load(place / workdir.TOKENIZER) if spoken else None
    return Initial(parts.nested(taken), {workdir.INIT_FROM: str(place)}, tokenizer)


def over(weights: Published, initial: Initial) -> Published:
    """Both together; where both bring a parameter it is the earlier run's."""
    params, ours = parts.merge(weights.params, initial.params), parts.flat(initial.params)
    kept = {module: digest for module, digest in weights.origins.items()
            if not any(parts.is_named(name, [module]) for name in ours)}  # fmt: skip
    return Published(params, kept)


def remarks(shapes: dict, initial: Initial) -> list[str]:
    """Lines for people: which modules were taken, how many parameters, and which stay random."""
    if not initial.params:
        return []
    taken, wanted = (_by_module(parts.flat(tree)) for tree in (initial.params, shapes))
    told = [f"{module} {count / 1e6:.2f} M" + ("" if count == wanted[module] else f" of {wanted[module] / 1e6:.2f} M")
            for module, count in taken.items()]  # fmt: skip
    random = [module for module in wanted if module not in taken]
    return [
        f"{sum(taken.values()) / 1e6:.2f} M averaged weights of {initial.origin[workdir.INIT_FROM]}: {', '.join(told)}",
        f"not among them, and begun afresh: {', '.join(random) or 'nothing'}",
    ]


def _check(config: Config, earlier: Config, taken: Mapping[str, Any], wanted: Mapping[str, tuple], place: str) -> None:
    if not taken:
        raise UserError(f"config: train.init_from: {place} has no parameter in common with this model: name a run of "
                        f"family pretraining or ssuformer with the same kind of encoders")  # fmt: skip
    wrong = [f"{name} is {tuple(leaf.shape)} there, wanted {wanted[name]}"
             for name, leaf in taken.items() if tuple(leaf.shape) != wanted[name]]  # fmt: skip
    if wrong:
        more = f" and {len(wrong) - _NUM_NAMED} more" if len(wrong) > _NUM_NAMED else ""
        raise UserError(f"config: train.init_from: {place} is of another size: {'; '.join(wrong[:_NUM_NAMED])}{more}: "
                        "give model.* the sizes of that run")  # fmt: skip
    both_named = config.family == earlier.family == "ssuformer"
    if both_named and config.data.classes != earlier.data.classes:
        raise UserError(f"config: train.init_from: the run in {place} knows other data.classes, or in another order: "
                        "name the same, or begin with a pre-training run, which knows none")  # fmt: skip


def _by_module(leaves: Mapping[str, Any]) -> dict[str, int]:
    """First part of a name -> entries below it."""
    counted = collections.Counter()
    for name, leaf in leaves.items():
        counted[name.partition("/")[0]] += leaf.size
    return dict(counted)
