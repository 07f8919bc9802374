"""The figures of `statistics`, as lines for people."""

from collections.abc import Mapping
from typing import Any

MOST_ROWS = 40  # classes
_MOST_WORDS = 12
_MOST_NAMES = 6


def lines(name: str, found: Mapping[str, Any]) -> list[str]:
    """A split's table; name: what stands above it."""
    clips = f"{found['clips']:,} clip{'s' * (found['clips'] != 1)}"
    seconds = f"{found['seconds']:,} s ({found['valid_seconds']:,} s valid)"
    head = f"{name}: {clips}, {seconds}, {found['bytes'] / 1e6:,.1f} MB"
    if not found["clips"]:
        return [head]
    size = f", {found['bytes'] / found['clips'] / 1e3:,.0f} kB a clip"
    rows = [
        ("known", _known(found)),
        ("clips", f"{_names(found['seconds_per_clip'], ' s')}; {_names(found['frame_sizes'], ' pixels')}; "
                  f"{_names(found['sample_rates'], ' Hz')}"),
        *[(name, _names(found[name])) for name in ("datasets", "majors", "categories")],
        ("silence", f"nothing is heard in {_percent(found['sources']['silent_share'])} of the seconds, nothing in the "
                    f"picture sounds in {_percent(found['sources']['silent_picture_share'])}"),
        ("masks", _masks(found["masks"])),
        ("sentences", _sentences(found["sentences"])),
        ("words", _words(found["sentences"])),
    ]  # fmt: skip
    told = [f"  {label:12}{text}" for label, text in rows]
    return [head + size, *told, "", *_sources(found["sources"]), "", *_classes(found["classes"])]


def _known(found: Mapping[str, Any]) -> str:
    valid = found["valid_seconds"]
    shares = {name: part / valid if valid else None for name, part in found["known_seconds"].items()}
    return ", ".join(f"{name} {_percent(share)}" for name, share in shares.items()) + " of the valid seconds"


def _names(counts: Mapping[str, int], unit: str = "") -> str:
    """'a 3, b 2, ...': how many clips each has; a single one without its number."""
    named = {(name or "(none)") + unit: count for name, count in counts.items()}
    if len(named) == 1:
        return "all " + next(iter(named))
    most = sorted(named.items(), key=lambda item: -item[1])[:_MOST_NAMES]
    more = f", and {len(named) - len(most)} more" if len(named) > len(most) else ""
    return ", ".join(f"{name} {count:,}" for name, count in most) + more


def _masks(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "none" if found["empty_share"] is None else "all empty"
    low, quarter, median, three_quarters, high = map(_percent, found["quantiles"].values())
    return (
        f"empty in {_percent(found['empty_share'])} of the seconds, else {median} of the frame in the middle "
        f"(mean {_percent(found['mean'])}; half lie between {quarter} and {three_quarters}, nine tenths between {low} "
        f"and {high})"
    )


def _sentences(found: Mapping[str, Any]) -> str:
    if not found["sentences"]:
        return "none" if found["empty_share"] is None else "all empty"
    low, _, median, _, high = found["words"]["quantiles"].values()
    return (
        f"{found['sentences']:,}, empty in {_percent(found['empty_share'])} of the seconds; {median} words in the "
        f"middle (mean {found['words']['mean']:.1f}; nine tenths have {low} to {high})"
    )


def _words(found: Mapping[str, Any]) -> str:
    most = list(found["frequent_words"].items())[:_MOST_WORDS]
    told = ", ".join(f"{word} {count:,}" for word, count in most)
    return f"{found['vocabulary']:,} different ones: {told}" if told else "none"


def _sources(found: Mapping[str, Any]) -> list[str]:
    numbers = sorted({int(number) for kind in ("seen", "heard") for number in found[kind]})
    if not numbers:
        return ["  sources a second: not known"]
    rows = [f"  {'sources a second':22}" + "".join(f"{number:>10}" for number in numbers)]
    for label, kind in (("in the picture", "seen"), ("heard, off screen too", "heard")):
        counts = [found[kind].get(str(number), 0) for number in numbers]
        rows.append(f"  {label:22}" + "".join(f"{_percent(count / sum(counts)):>10}" for count in counts))
    return rows


def _classes(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return ["  classes: no object is named"]
    width = max(len("class"), *map(len, list(found)[:MOST_ROWS])) + 2
    rows = [f"  {'class':{width}}{'clips':>8}{'sounds in picture':>20}{'off screen':>14}{'silent in picture':>20}"]
    for name, counts in list(found.items())[:MOST_ROWS]:
        on, off, silent = (f"{counts[f'seconds_{kind}']:,} s" for kind in ("on_screen", "off_screen", "silent"))
        rows.append(f"  {name:{width}}{counts['clips']:>8,}{on:>20}{off:>14}{silent:>20}")
    if len(found) > MOST_ROWS:
        rows.append(f"  and {len(found) - MOST_ROWS} classes more (--json holds all)")
    return rows


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"
