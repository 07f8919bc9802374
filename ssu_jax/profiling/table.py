"""The lines that `ssu profile` prints, made from the result alone."""

from collections.abc import Mapping
from typing import Any

from ssu_jax.profiling.programs import PREDICTION, TRAINING_STEP
from ssu_jax.profiling.report import published

PROGRAMS = (PREDICTION, TRAINING_STEP)
_GIB = 1 << 30


def table(result: Mapping[str, Any]) -> str:
    """The paper's columns with ours first, then what lies behind each of them."""
    writers = {"parameters": _parameters, "flops": _flops, "speed": _speed, "memory": _memory,
               "compile_seconds": _compiling, "peers": _peers}  # fmt: skip
    lines = _columns(result)
    for part, write in writers.items():
        if part in result:
            lines += ["", *write(result[part])]
    device, versions = result["device"], result["versions"]
    where = f"{device['kind']} ({device['platform']}; {device['processor']}, {device['cores']} cores)"
    return "\n".join([*lines, "", f"{where}, jax {versions['jax']}"])


def _columns(result: Mapping[str, Any]) -> list[str]:
    paper = published()
    prediction = result.get("flops", {}).get(PREDICTION, {})
    speed = result.get("speed", {}).get(PREDICTION, {})
    ours = {
        "model": f"{result['name']}, here",
        "parameters": result.get("parameters", {}).get("total"),
        "frames_per_second": speed.get("frames_per_second"),
        "flops": prediction.get("published_per_sample"),
        "seconds_per_sample": speed.get("seconds_per_sample"),
    }
    lines = [f"{'model':22}{'params':>10}{'FPS':>10}{'FLOPs':>10}{'s/sample':>10}", _row(ours)]
    return [
        *lines,
        f"published ({paper['source']}):",
        *map(_row, paper["rows"]),
        *(f"  {note}" for note in paper["notes"]),
    ]


def _row(row: Mapping[str, Any]) -> str:
    seconds, rate = row["seconds_per_sample"], row["frames_per_second"]
    return (
        f"{row['model']:22}{scaled(row['parameters'], 'B'):>10}{'-' if rate is None else f'{rate:.2f}':>10}"
        f"{scaled(row['flops']):>10}{'-' if seconds is None else f'{seconds:.3f}':>10}"
    )


def _parameters(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{'parameters':26}{'number':>14}{'share':>9}"]
    lines += [f"  {name:24}{size:>14,}{size / found['total']:>9.1%}" for name, size in found["by_module"].items()]
    lines.append(f"  {'total':24}{found['total']:>14,}")
    lines += [f"  {name:24}{found[name]:>14,}{found[name] / found['total']:>9.1%}" for name in ("trainable", "active")]
    return lines + [f"  {name:24}{size:>14,}   counted apart" for name, size in found["apart"].items()]


def _flops(found: Mapping[str, Any]) -> list[str]:
    both = [found[name] for name in PROGRAMS]
    rows = [("frames", [str(each["frames"]) for each in both])]
    rows += [(kind, [scaled(each["by_kind"][kind]) for each in both]) for kind in both[0]["by_kind"]]
    for label, key in (("all of it", "per_sample"), ("matmul + convolution", "published_per_sample"),
                       ("the same, a frame", "published_per_frame")):  # fmt: skip
        rows.append((label, [scaled(each[key]) for each in both]))
    lines = [f"{'FLOPs of one sample':26}{'prediction':>14}{'training step':>16}"]
    lines += [f"  {label:24}{values[0]:>14}{values[1]:>16}" for label, values in rows]
    about = (
        "A sample is a mixture, a frame one of its pictures."
        if found.get("family") == "tvsl"
        else f"Sentences count at their longest ({found['max_text_tokens']} tokens)."
    )
    lines.append(f"  2 a multiply-add; the table above takes matmul + convolution. {about}")
    for name, each in zip(PROGRAMS, both, strict=True):
        if each["loops_counted_once"]:
            lines.append(f"  {_title(name)}: loops of unknown length, counted once: {each['loops_counted_once']}")
        if each["uncounted"]:
            lines.append(f"  {_title(name)}: not counted: {', '.join(each['uncounted'])}")
    return lines


def _speed(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, each in found.items():
        spread = f"{each['fastest_seconds']:.4f} to {each['slowest_seconds']:.4f}"
        lines.append(
            f"{_title(name)}: {each['seconds_per_sample']:.4f} s a sample of {each['frames']} frames, "
            f"{each['frames_per_second']:.1f} frames/s (median of {each['repeats']} runs, {spread})"
        )
        if "longest_sentence" in each:
            lines.append(f"  weights are random: the longest sentence ran to {each['longest_sentence']} tokens")
    return lines


def _memory(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in (name for name in PROGRAMS if name in found):
        each = found[name]
        parts = ", ".join(f"{part} {_bytes(each[part])}" for part in ("arguments", "temporaries", "outputs"))
        lines.append(f"memory of the {_title(name)}: {_bytes(each['peak'])} by the compiler's plan ({parts})")
        if each["device_peak"] is not None:
            lines.append(f"  most that the device held until then: {_bytes(each['device_peak'])}")
    process = _bytes(found["process_peak"])
    return [*lines, f"  most that the process held of main memory, libraries and compiler included: {process}"]


def _compiling(found: Mapping[str, float]) -> list[str]:
    taken = ", ".join(f"{_title(name)} {seconds:.1f} s" for name, seconds in found.items())
    return [f"compiling, in no time above: {taken}"]


def _peers(found: list[Mapping[str, Any]]) -> list[str]:
    size = " x ".join(map(str, found[0]["input"]))
    lines = [f"{'encoder, ' + size:36}{'ours, s':>9}{'torch, s':>10}{'ratio':>8}{'fastest':>9}{'params':>10}"]
    for each in found:
        seconds = each["seconds"]
        lines.append(
            f"  {each['encoder']:34}{seconds['ours']:>9.3f}{seconds['theirs']:>10.3f}{each['ratio']:>8.2f}"
            f"{each['ratio_of_fastest']:>9.2f}{scaled(each['parameters']['ours']):>10}"
        )
    versions = found[0]["versions"]
    return [
        *lines,
        "  ratio: of the medians, and of the fastest runs; below 1 ours is faster",
        f"  CPU, float32, random weights; torch {versions['torch']}, transformers {versions['transformers']}",
    ]


def _title(name: str) -> str:
    return name.replace("_", " ")


def scaled(number: float | None, billion: str = "G") -> str:
    """319620000 -> '319.62M'; '-' for None. `billion`: G of FLOPs, B of parameters."""
    if number is None:
        return "-"
    units = ((1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k"))
    size, unit = next(((size, unit) for size, unit in units if number >= size), (1, ""))
    return f"{number / size:.2f}{unit}" if unit else str(number)


def _bytes(number: int) -> str:
    return f"{number / _GIB:.2f} GiB" if number >= _GIB else f"{number / (1 << 20):.1f} MiB"
