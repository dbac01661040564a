"""The fields of a head, taken apart no further than somebody looks.

A proxy hands most fields on untouched, and most lines it sees it has seen before: the same browsers, the same clients,
the same origin, day in, day out. So a head is cut into lines once, lines known to be well-formed and ordinary are
recognised by one set look-up, and only new ones and the few that matter to an intermediary (`special`) are taken apart.
The list of pairs that ASGI speaks of is made when somebody looks. In instructions for a request of 12 fields:
httptools with a callback for each field and a new head made of them 55,000, a whole-head expression 66,000, this 51,000
for fields that differ from those of the request before and 20,000 for those that do not.
"""

from __future__ import annotations

from itertools import filterfalse
from typing import Any

from gateway.wire.grammar import WireError, match_field_line, tokens
from gateway.wire.lines import Pair, has_any, lines_without, pair_of, value_in
from gateway.wire.names import HOP_BY_HOP, IDENTITY, IDENTITY_PREFIXES, NO_NAMES, SINGLE, SPOOF

# Ordinary fields that may occur once, in requests: a second one is there to be read by somebody else.
_ONCE = (b"\r\nauthorization:", b"\r\ncontent-type:")
# Fields that ask something of an intermediary; few requests have one, so whether there is any is known beforehand.
_ASKING = frozenset((b"te", b"trailer", b"upgrade", b"expect", b"via", b"max-forwards"))
# A sender must not name what framing, routing and trust stand on; hop-by-hop fields go without being named.
_NEVER_NAMED = HOP_BY_HOP | IDENTITY | {b"", b"close", b"host", b"content-length"}
# Values of Connection that name no field beyond the hop-by-hop ones.
_USUAL_CONNECTION = frozenset(
    (b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"keep-alive, upgrade", b"te", b"te, close")
)
_MOST_WITHOUT = 16
_MOST_ASKED = 32
# The memory of fields that nobody has asked anything; never written to.
_NEVER_ASKED: dict[bytes, bytes | None] = {}
_WHOLE: dict[frozenset[bytes], Fields] = {}


class Lexicon:
    """What lines mean, for one direction, and which ones were judged before.

    Emptied when full, so whoever invents lines makes us do what we would do without this memory, and no more. Long
    lines and credentials under their standard names are not kept.
    """

    _MOST_LINES = 4096
    _LONGEST_LINE = 256
    # The standard names. An API key under a name of its own is kept like any other line until the memory is emptied;
    # nothing tells it to anybody. To know it by parts of its name costs every new line 0.2 us, and a key that is not
    # kept is judged again with every request whose fields differ, for 1.7 us.
    _SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))

    def __init__(self, special: frozenset[bytes], prefixes: tuple[bytes, ...], is_request: bool) -> None:
        """special, prefixes: the names, and the beginnings of names, that an intermediary must look at."""
        self.is_request = is_request
        self._special = special
        self._prefixes = prefixes
        self._ordinary: set[bytes] = set()
        self.meaning: dict[bytes, Pair] = {}  # what the special lines that are known say
        self.is_ordinary = self._ordinary.__contains__

    def learn(self, line: bytes) -> Pair | None:
        """Judge a line that is not known: what a special one says, None for an ordinary one. Raises WireError for one
        that can't be a field."""
        match = match_field_line(line)
        if match is None:
            raise WireError(400, "header_field_malformed")
        name = match[1].lower()
        matters = name in self._special or name.startswith(self._prefixes) or (self.is_request and SPOOF in name)
        pair = (name, match[2].rstrip()) if matters else None
        if len(line) <= self._LONGEST_LINE and name not in self._SECRET:
            if len(self._ordinary) + len(self.meaning) >= self._MOST_LINES:
                self._ordinary.clear()
                self.meaning.clear()
            if pair is None:
                self._ordinary.add(line)
            else:
                self.meaning[line] = pair
        return pair


REQUEST_LEXICON = Lexicon(HOP_BY_HOP | IDENTITY | _ASKING | {b"host", b"content-length"}, IDENTITY_PREFIXES, True)
RESPONSE_LEXICON = Lexicon(HOP_BY_HOP | {b"content-length", b"date", b"via"}, (), False)


class Fields:
    """The field lines of a head: which are ordinary, and what the special ones say. Not changed once made, and so
    shared by all requests of a connection that say the same: a client's fields seldom change from one to the next.

    ordinary: every ordinary line, each with CRLF before it. special: the fields that matter to an intermediary, by
    lower-case name; repeated ones are joined by a comma (RFC 9110, section 5.3). notes: what others have made out of
    them, each under a key of its own; it holds for the next message that says the same.
    """

    __slots__ = (
        "_lasting", "_lexicon", "_lists", "_lower", "_pairs", "_values", "_without", "asking", "block", "count",
        "named", "notes", "ordinary", "special",
    )  # fmt: skip

    def __init__(self, block: bytes, lexicon: Lexicon) -> None:
        """block: the lines, CRLF between them. Raises WireError for one that can't be a field."""
        self.block = block
        self.named: frozenset[bytes] = NO_NAMES  # what Connection names beyond the usual
        self._lexicon = lexicon
        self._pairs: list[Pair] | None = None
        self._lasting: list[Pair] | None = None
        self._lower = b""
        self._without = _WHOLE
        # What was asked for, for it will be asked for again: by the next request of the connection.
        self._values: dict[bytes, bytes | None] = _NEVER_ASKED
        self._lists: dict[bytes, bytes | None] | None = None
        self.notes: dict[Any, Any] | None = None
        self.special: dict[bytes, bytes] = {}
        self.count = 0
        self.asking = False  # whether a field asks something of an intermediary
        self.ordinary = b""
        if block:
            self._take_apart(block.split(b"\r\n"))

    def _take_apart(self, lines: list[bytes]) -> None:
        self.count = len(lines)
        special = self.special
        lexicon = self._lexicon
        meaning = lexicon.meaning
        for line in tuple(filterfalse(lexicon.is_ordinary, lines)):
            pair = meaning.get(line)
            if pair is None:
                pair = lexicon.learn(line)
                if pair is None:
                    continue
            lines.remove(line)
            name, value = pair
            if name in special:
                if name in SINGLE:
                    raise WireError(400, "repeated_" + name.decode().replace("-", "_"))
                value = special[name] + b", " + value
            special[name] = value
        if lines:
            self.ordinary = b"\r\n" + b"\r\n".join(lines)
            if lexicon.is_request:
                lower = self.ordinary.lower()
                if lower.count(_ONCE[0]) > 1 or lower.count(_ONCE[1]) > 1:
                    raise WireError(400, "repeated_field")
        named = special.get(b"connection")
        if named is not None and named not in _USUAL_CONNECTION and named.lower() not in _USUAL_CONNECTION:
            self._drop_named(named)
        self.asking = not _ASKING.isdisjoint(special)

    def _drop_named(self, named: bytes) -> None:
        """Remove the fields that Connection names (RFC 9110, section 7.6.1)."""
        names = self.named = frozenset(
            name for name in tokens(named) if name not in _NEVER_NAMED and not name.startswith(IDENTITY_PREFIXES)
        )
        if not names:
            return
        for name in names.intersection(self.special):
            del self.special[name]
        lines = self.ordinary.split(b"\r\n")
        self.ordinary = b"\r\n".join([line for line in lines if line.partition(b":")[0].lower() not in names])
        self._pairs = [pair for pair in self.pairs() if pair[0] not in names]

    def pairs(self) -> list[Pair]:
        """Every field in order, without those that Connection names or that are dropped. Made once."""
        if self._pairs is None:
            pairs = [pair_of(line) for line in self.block.split(b"\r\n")] if self.block else []
            self._pairs = [pair for pair in pairs if SPOOF not in pair[0]] if self._lexicon.is_request else pairs
        return self._pairs

    def lasting(self) -> list[Pair]:
        """The pairs that hold beyond this hop: of a response those that don't end here, of a request those that don't
        say who the client is, which is the listener's to say. Made once."""
        if self._lasting is None:
            if self._lexicon.is_request:
                self._lasting = [
                    pair
                    for pair in self.pairs()
                    if pair[0] not in IDENTITY and not pair[0].startswith(IDENTITY_PREFIXES)
                ]
            else:
                self._lasting = [pair for pair in self.pairs() if pair[0] not in HOP_BY_HOP]
        return self._lasting

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name, None for none."""
        values = self._values
        if name in values:
            return values[name]
        if values is _NEVER_ASKED or len(values) > _MOST_ASKED:
            values = self._values = {}
        value = self.special.get(name)
        if value is None and self.ordinary:
            if not self._lower:
                self._lower = self.ordinary.lower()
            value = value_in(self.ordinary, name, self._lower)
        values[name] = value
        return value

    def listed(self, name: bytes) -> bytes | None:
        """All fields of this lower-case name as one list (RFC 9110, section 5.3), None for none."""
        lists = self._lists
        if lists is None or len(lists) > _MOST_ASKED:
            lists = self._lists = {}
        elif name in lists:
            return lists[name]
        value = self.value(name)
        if value is not None and name not in self.special and self._lower.count(b"\r\n" + name + b":") > 1:
            value = b", ".join([value for known, value in self.pairs() if known == name])
        lists[name] = value
        return value

    def repeats(self, name: bytes) -> bool:
        """Whether more than one ordinary field has this lower-case name."""
        if not self._lower:
            self._lower = self.ordinary.lower()
        needle = b"\r\n" + name + b":"
        lower = self._lower
        at = lower.find(needle)
        return at >= 0 and lower.find(needle, at + 1) >= 0

    def without(self, names: frozenset[bytes]) -> Fields:
        """The same without the fields of these lower-case names; itself when it has none of them. Remembered, for what
        one layer takes from a request it takes from the next as well."""
        if names in self._without:
            return self._without[names]
        if not self._lower:
            self._lower = self.ordinary.lower()
        made = self
        if not names.isdisjoint(self.special) or has_any(self._lower, names):
            made = Fields(b"", self._lexicon)
            made.named = self.named
            made.block = lines_without(self.block, names)
            made.ordinary = lines_without(self.ordinary, names)
            made.special = {name: value for name, value in self.special.items() if name not in names}
            made.count = self.count
            made.asking = not _ASKING.isdisjoint(made.special)
            made._pairs = [pair for pair in self.pairs() if pair[0] not in names]
        if self._without is _WHOLE or len(self._without) >= _MOST_WITHOUT:
            self._without = {}
        self._without[names] = made
        return made
