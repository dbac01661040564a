"""Where TLS connections go by the name that their client asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Place = TypeVar("Place")


class Names(Generic[Place]):
    """Names and wildcards, and what each leads to. Asking costs a look for each label of a name, however many there
    are."""

    __slots__ = ("_exact", "_wild")

    def __init__(self, names: Iterable[tuple[str, Place]]) -> None:
        """names: in lower case; "*.example.com" stands for one or more labels below it. The first of two that are the
        same counts."""
        self._exact: dict[str, Place] = {}
        self._wild: dict[str, Place] = {}  # by what follows the star
        for name, place in names:
            if name.startswith("*"):
                self._wild.setdefault(name[1:], place)
            else:
                self._exact.setdefault(name, place)

    def __bool__(self) -> bool:
        return bool(self._exact or self._wild)

    def find(self, name: str) -> Place | None:
        """An exact name goes before a wildcard, a longer wildcard before a shorter one."""
        place = self._exact.get(name)
        at = name.find(".", 1)
        while place is None and at > 0:
            place = self._wild.get(name[at:])
            at = name.find(".", at + 1)
        return place
