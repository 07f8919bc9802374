"""Which experts serve what, as files: what `ssu evaluate --routing` leaves behind.

routing.json   shares, lifts and prompt levels by layer (expert_use.as_dict), with facts of the run
block_0.png    one expert layer; block_1.png the next
"""

import json
import pathlib
from typing import Any

from PIL import Image

from ssu_jax import expert_use, files
from ssu_jax.visualization import routing

NUMBERS = "routing.json"


def write(
    folder: pathlib.Path,
    params: Any,
    config: Any,
    tokenizer: Any,
    facts: dict[str, Any],
    **options: Any,
) -> list[str]:
    """Reads the split again with an eye on the experts, writes the files and returns a line a layer for people.

    facts: stored in the JSON beside the numbers; options as `expert_use.look`. Raises UserError as that does.
    """
    use = expert_use.look(params, config, tokenizer, **options)
    told = expert_use.as_dict(use)
    files.atomic_write(folder / NUMBERS, json.dumps(facts | told, indent=1, allow_nan=False) + "\n")
    lines = []
    for number, layer in enumerate(told["layers"]):
        size = f"{told['num_experts']} experts, {layer['words'][0]} words"
        title = f"{config.name}, block {number}: {size} of {options['split']}"
        with files.atomic_path(folder / f"block_{number}.png") as temporary:
            Image.fromarray(routing.expert_use(told["groups"], layer, layer["words"], title)).save(temporary)
        lines.append(f"block {number}: {summary(told['groups'], layer)}")
    return lines


def summary(groups: list[str], layer: dict[str, Any], most: int = 3) -> str:
    """'busiest expert: 1.21 times its even share; strongest: radio -> expert 0 (2.0)': the lifts that count."""
    found = [
        (lift, f"{groups[row].partition('/')[2]} -> expert {expert} ({lift:.1f})")
        for row in range(1, len(groups))
        for expert, lift in enumerate(layer["lift"][row])
        if lift is not None and layer["words"][row] * layer["load"][expert] >= routing.FEW_WORDS
    ]
    strongest = ", ".join(text for _, text in sorted(found, reverse=True)[:most])
    return f"busiest expert: {layer['max_load']:.2f} times its even share; strongest: {strongest or 'too few words'}"
