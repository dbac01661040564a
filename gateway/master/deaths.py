"""What is remembered of children that died: how long to wait before the next one, and where there is no use in
trying."""

from __future__ import annotations

import random
import time

from gateway.scoreboard import Role

_YOUNG = 10.0  # a child that lived longer than this is replaced at once, a younger one after a pause
_FIRST, _MOST = 0.1, 30.0  # seconds of that pause: doubled with each young death, up to the second

Place = tuple[Role, int]  # role and slot


class Deaths:
    """Those of one generation: another configuration is another chance. `broken`: places whose child can't boot with
    this one."""

    def __init__(self) -> None:
        self._young: dict[Place, tuple[int, float]] = {}  # young deaths in a row, and not before when
        self.broken: set[Place] = set()

    def died(self, place: Place, age: float) -> None:
        """A child at this place ended at this age."""
        deaths, _ = self._young.get(place, (0, 0.0))
        if age > _YOUNG:
            self._young.pop(place, None)
        else:
            pause = min(_MOST, _FIRST * 2**deaths) * random.uniform(0.8, 1.2)
            self._young[place] = (deaths + 1, time.monotonic() + pause)

    def failed(self, place: Place) -> None:
        """No child could even be made there: what is short now will not be there in a moment."""
        self._young[place] = (9, time.monotonic() + _MOST)

    def may_follow(self, place: Place) -> bool:
        """Whether the pause is over."""
        _, not_before = self._young.get(place, (0, 0.0))
        return time.monotonic() >= not_before
