"""Memory that is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.recent import Recent

KEY = st.integers(0, 9).map(lambda number: b"%d" % number)


def test_what_is_in_use_stays() -> None:
    recent: Recent[int] = Recent(4)
    for number in range(100):
        recent.put(b"%d" % number, number)
        recent.put(b"used", -1)
        assert recent.get(b"used") == -1
        assert len(recent) <= 4
    assert recent.get(b"99") == 99 and recent.get(b"0") is None


@given(st.lists(st.tuples(st.sampled_from(["get", "put", "drop", "keep", "clear"]), KEY)), st.integers(1, 6))
def test_it_never_knows_what_is_not_so(acts: list[tuple[str, bytes]], most: int) -> None:
    recent: Recent[bytes] = Recent(most)
    known: dict[bytes, bytes] = {}
    for number, (act, key) in enumerate(acts):
        if act == "put":
            known[key] = b"%b %d" % (key, number)
            recent.put(key, known[key])
            assert recent.get(key) == known[key]
        elif act == "drop":
            known.pop(key, None)
            recent.drop(key)
        elif act == "keep":
            known = {other: value for other, value in known.items() if other != key}
            recent.keep(lambda value, key=key: not value.startswith(key + b" "))  # type: ignore[misc]
        elif act == "clear":
            known.clear()
            recent.clear()
        assert recent.get(key) in (None, known.get(key))
        assert len(recent) <= max(2, most)
