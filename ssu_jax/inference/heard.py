"""What was heard in a whole video, and whether its source was in the picture: the notes that name sounds."""

from collections.abc import Iterable

_MOST_SPANS = 3  # a sound that comes and goes more often is counted in seconds


class _Sound:
    """One sound: in how many seconds, in how many of them its source was seen, and the first spans of seconds."""

    def __init__(self):
        self.heard = self.seen = self.num_spans = 0
        self.spans: list[list[int]] = []
        self._last = -2

    def add(self, second: int, is_seen: bool) -> None:
        self.heard += 1
        self.seen += is_seen
        if second != self._last + 1:
            self.num_spans += 1
            if self.num_spans <= _MOST_SPANS:
                self.spans.append([second, second])
        elif self.num_spans <= _MOST_SPANS:
            self.spans[-1][1] = second
        self._last = second


class Heard:
    """Takes the sounds of second after second, in memory that does not grow with them."""

    def __init__(self):
        self._sounds: dict[str, _Sound] = {}

    def add(self, second: int, sounds: Iterable[tuple[str, bool]]) -> None:
        """sounds: (name, whether its source is in the picture)."""
        for name, is_seen in sounds:
            self._sounds.setdefault(name, _Sound()).add(second, is_seen)

    def notes(self) -> list[str]:
        """One line of the sounds whose source was seen, one of the others; the longest heard first."""
        ordered = sorted(self._sounds.items(), key=lambda item: (-item[1].heard, item[0]))
        seen = [f"{name} ({_when(one)}{_seen(one)})" for name, one in ordered if one.seen]
        unseen = [f"{name} ({_when(one)})" for name, one in ordered if not one.seen]
        lines = [("heard, its source in the picture", seen), ("heard, its source not found in the picture", unseen)]
        return [f"{what}: {'; '.join(sounds)}" for what, sounds in lines if sounds]


def _when(one: _Sound) -> str:
    if one.num_spans > _MOST_SPANS:
        return f"{one.heard} s in all"
    return ", ".join(f"{_clock(first)} to {_clock(last + 1)}" for first, last in one.spans)


def _seen(one: _Sound) -> str:
    return "" if one.seen == one.heard else f", seen in {one.seen} of {one.heard} s"


def _clock(second: int) -> str:
    hours, minutes = second // 3600, second // 60 % 60
    return f"{hours}:{minutes:02d}:{second % 60:02d}" if hours else f"{minutes}:{second % 60:02d}"
