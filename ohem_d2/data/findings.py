"""What is odd in a data set: one list, which training and ``ohem-d2 data`` show."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..paths import printable

_NAMED = 3  # files a line names


@dataclass(frozen=True)
class Finding:
    """
    One thing that is odd.

    Args:
        name: of the kind of thing, the same for all of the kind: "box of zero area, left out".
        file: where it is. A data set or a folder if it is no single file's.
        words: what is odd there, with the line or the entry: "object 3, a 'dog'".
    """

    name: str
    file: str
    words: str


class Findings(list[Finding]):
    """All that is odd in a data set, in the order in which it was found."""

    def add(self, name: str, file: object, words: str = "") -> None:
        """Add what a check found; see `Finding`."""
        self.append(Finding(name, str(file), words))

    def by_name(self) -> dict[str, list[Finding]]:
        """Return the findings of each kind."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self:
            kinds.setdefault(finding.name, []).append(finding)
        return kinds

    def summary(self) -> list[str]:
        """Return a line for each kind: how often it was found, and the first places."""
        return [
            printable(f"{name}: {len(found)} ({_in_words(found)})")
            for name, found in self.by_name().items()
        ]


def _in_words(found: Sequence[Finding]) -> str:
    places = list(dict.fromkeys(f"{x.file}: {x.words}" if x.words else x.file for x in found))
    more = f"; and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return "; ".join(places[:_NAMED]) + more
