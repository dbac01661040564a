"""HTTP/1.1 on the wire: bytes in, facts out (RFC 9112). No socket, no clock, no await.

The grammar is the RFC's without its obsolete parts: no bare CR or LF, no folding, no space before a colon, no control
characters. A line that does not match is refused, never repaired.

A proxy hands most fields on untouched, and most lines it sees it has seen before: the same browsers, the same clients,
the same origin, day in, day out. So a head is cut into lines once, lines known to be well-formed and ordinary are
recognised by one set look-up, and only new ones and the few that matter to an intermediary (`special`) are taken apart.
The list of pairs that ASGI speaks of is made when somebody looks. In instructions for a request of 12 fields:
httptools with a callback for each field and a new head made of them 55,000, a whole-head expression 66,000, this 51,000
for fields that differ from those of the request before and 20,000 for those that do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import filterfalse
from typing import Any
from urllib.parse import parse_qsl

Pair = tuple[bytes, bytes]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"++) ([\x21\x22\x24-\x7e\x80-\xff]++) HTTP/1\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?")
_FIELD_LINE = re.compile(rb"(" + _TOKEN + rb"++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)")
_TRAILERS = re.compile(rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=.)", re.DOTALL)
_TOKEN_ONLY = re.compile(_TOKEN + rb"++")
_VALUE_ONLY = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")

# Removed by every intermediary, with what Connection names (RFC 9110, section 7.6.1; Go's list).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# Told to the application by us, never by a client whom nobody vouched for; so is every name that begins so.
IDENTITY = frozenset((b"forwarded", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip"))
IDENTITY_PREFIXES = (b"x-forwarded-", b"x-original-")
# More than one of these in a request is an attempt to be read in two ways.
SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding"))


# What CGI would spell like another one: `X_Real_IP` and `X-Real-IP` both become HTTP_X_REAL_IP. Dropped, as nginx does.
_SPOOF = b"_"
# Ordinary fields that may occur once, in requests: a second one is there to be read by somebody else.
_ONCE = (b"\r\nauthorization:", b"\r\ncontent-type:")


class WireError(Exception):
    """A message that must not be read. status: what a client is told; reason: a code for people and logs."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Lexicon:
    """What lines mean, for one direction, and which ones were judged before.

    Emptied when full, so whoever invents lines makes us do what we would do without this memory, and no more. Long
    lines and credentials are not kept.
    """

    _MOST_LINES = 4096
    _LONGEST_LINE = 256
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
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise WireError(400, "header_field_malformed")
        name = match[1].lower()
        matters = name in self._special or name.startswith(self._prefixes) or (self.is_request and _SPOOF in name)
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


# Fields that ask something of an intermediary; few requests have one, so whether there is any is known beforehand.
_ASKING = frozenset((b"te", b"trailer", b"upgrade", b"expect", b"via", b"max-forwards"))

_REQUEST = Lexicon(HOP_BY_HOP | IDENTITY | _ASKING | {b"host", b"content-length"}, IDENTITY_PREFIXES, True)
_RESPONSE = Lexicon(HOP_BY_HOP | {b"content-length", b"date", b"via"}, (), False)


class Fields:
    """The field lines of a head: which are ordinary, and what the special ones say. Not changed once made, and so
    shared by all requests of a connection that say the same: a client's fields seldom change from one to the next.

    ordinary: every ordinary line, each with CRLF before it. special: the fields that matter to an intermediary, by
    lower-case name; repeated ones are joined by a comma (RFC 9110, section 5.3).
    """

    __slots__ = (
        "_lasting", "_lexicon", "_lists", "_lower", "_pairs", "_values", "_without", "asking", "block", "count",
        "named", "ordinary", "special",
    )  # fmt: skip

    def __init__(self, block: bytes, lexicon: Lexicon) -> None:
        """block: the lines, CRLF between them. Raises WireError for one that can't be a field."""
        self.block = block
        self.named: frozenset[bytes] = _NOTHING  # what Connection names beyond the usual
        self._lexicon = lexicon
        self._pairs: list[Pair] | None = None
        self._lasting: list[Pair] | None = None
        self._lower = b""
        self._without: dict[frozenset[bytes], Fields] | None = None
        # What was asked for, for it will be asked for again: by the next request of the connection.
        self._values: dict[bytes, bytes | None] | None = None
        self._lists: dict[bytes, bytes | None] | None = None
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
            pairs = [_pair(line) for line in self.block.split(b"\r\n")] if self.block else []
            self._pairs = [pair for pair in pairs if _SPOOF not in pair[0]] if self._lexicon.is_request else pairs
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
        if values is None or len(values) > _MOST_ASKED:
            values = self._values = {}
        elif name in values:
            return values[name]
        value = self.special.get(name)
        if value is None and self.ordinary:
            if not self._lower:
                self._lower = self.ordinary.lower()
            value = _value_in(self.ordinary, name, self._lower)
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
        if self._without is not None and names in self._without:
            return self._without[names]
        if not self._lower:
            self._lower = self.ordinary.lower()
        lower = self._lower
        made = self
        if not names.isdisjoint(self.special) or any(needle in lower for needle in _needles(names)):
            made = Fields(b"", self._lexicon)
            made.named = self.named
            made.block = _kept(self.block, names)
            made.ordinary = _kept(self.ordinary, names)
            made.special = {name: value for name, value in self.special.items() if name not in names}
            made.count = self.count
            made.asking = not _ASKING.isdisjoint(made.special)
            made._pairs = [pair for pair in self.pairs() if pair[0] not in names]
        if self._without is None or len(self._without) >= _MOST_WITHOUT:
            self._without = {}
        self._without[names] = made
        return made


_MOST_WITHOUT = 16
_MOST_ASKED = 32


@lru_cache(maxsize=1024)
def _needles(names: frozenset[bytes]) -> tuple[bytes, ...]:
    """What fields of these names look like in a block, CRLF before each line."""
    return tuple([b"\r\n" + name + b":" for name in names])


def _kept(lines: bytes, names: frozenset[bytes]) -> bytes:
    """A block without the lines of these names."""
    return b"\r\n".join([line for line in lines.split(b"\r\n") if line.partition(b":")[0].lower() not in names])


def _value_in(lines: bytes, name: bytes, lower: bytes | None = None) -> bytes | None:
    """The value of the first field of a lower-case name among lines with CRLF before each. lower: the same in lower
    case, when that is known."""
    needle = b"\r\n" + name + b":"
    at = (lines.lower() if lower is None else lower).find(needle)
    if at < 0:
        return None
    at += len(needle)
    end = lines.find(b"\r", at)  # there is none without an LF; a single byte is found five times as fast
    return lines[at : end if end >= 0 else len(lines)].strip(b" \t")


_NOTHING: frozenset[bytes] = frozenset()
# A sender must not name what framing, routing and trust stand on; hop-by-hop fields go without being named.
_NEVER_NAMED = HOP_BY_HOP | IDENTITY | {b"", b"close", b"host", b"content-length"}
# Values of Connection that name no field beyond the hop-by-hop ones.
_USUAL_CONNECTION = frozenset(
    (b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"keep-alive, upgrade", b"te", b"te, close")
)


class Head:
    """A message head: an iterable of (lower-case name, value) pairs, as ASGI has it, that hasn't been taken apart yet.

    lines: the start line and every ordinary field, without the last CRLF. special: as in Fields. added: what `add` has
    put behind them, CRLF before each line; it is in `lines` too. Each message has a head of its own, so whom it passes
    may change it.
    """

    __slots__ = ("added", "dropped", "fields", "length", "lines", "minor", "special")

    added: bytes
    dropped: frozenset[bytes]
    length: int
    minor: int
    fields: Fields
    lines: bytes
    special: dict[bytes, bytes]

    def pairs(self) -> list[Pair]:
        """The fields of the message, in order."""
        return self.fields.pairs()

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name, None for none."""
        if name == b"content-length":
            return self.special.get(name)
        value = self.fields.value(name)
        if value is None and self.added:
            value = _value_in(self.added, name)
        return value

    def repeats(self, name: bytes) -> bool:
        """Whether more than one field has this lower-case name. Not for those that matter to an intermediary: theirs
        are one already, joined by commas."""
        if not self.added:
            return self.fields.repeats(name)
        return (self.fields.ordinary + self.added).lower().count(b"\r\n" + name + b":") > 1

    def listed(self, name: bytes) -> bytes | None:
        """All fields of this lower-case name as one list, None for none. Not for those that introduce a client."""
        value = self.fields.listed(name)
        if self.added:
            added = [value for known, value in _pairs_of(self.added) if known == name]
            if added:
                return b", ".join(added if value is None else [value, *added])
        return value

    def drop(self, names: frozenset[bytes]) -> None:
        """Remove the fields of these lower-case names, also from trailers that are still to come: some servers put
        those among the others. Not for Host and what frames the message."""
        if self.dropped is not names:
            self.dropped = self.dropped | names if self.dropped else names
        fields = self.fields.without(names)
        if fields is not self.fields:
            if not names.isdisjoint(self.special):
                self.special = {name: value for name, value in self.special.items() if name not in names}
            self.fields = fields
        elif not self.added:
            return
        if self.added:
            self.added = _kept(self.added, names)
        self.lines = self.lines.partition(b"\r\n")[0] + fields.ordinary + self.added

    def add(self, lines: bytes) -> None:
        """Put these field lines behind the others, CRLF before each."""
        self.added += lines
        self.lines += lines

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs())

    def __len__(self) -> int:
        return len(self.pairs())

    def __getitem__(self, index: int) -> Pair:
        return self.pairs()[index]

    def __contains__(self, pair: object) -> bool:
        return pair in self.pairs()


class RequestHead(Head):
    """A request head. length: bytes of body, 0 for none, -1 for chunked.

    introduced: the listener's lines about the client, CRLF before each: they take the place of what it said of itself.
    """

    __slots__ = ("introduced", "keep_alive", "method", "target")

    def __init__(self, line: bytes, fields: Fields) -> None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise _bad_request_line(line)
        self.method, target, version = match.groups()
        self.target = target
        self.minor = minor = 0 if version == b"0" else 1  # a later one is read as ours (RFC 9110, section 2.5)
        self.fields = fields
        self.added = b""
        self.dropped = _NOTHING
        self.lines = line + fields.ordinary
        self.special = special = fields.special
        host = special.get(b"host")
        if host is None:
            if minor:
                raise WireError(400, "host_missing")
        elif len(host) > _LONGEST_AUTHORITY or not _is_authority(host):
            raise WireError(400, "host_invalid")
        self.length = _request_length(special, minor)
        if version != b"1" or not target.startswith(b"/"):
            self._normalise()
        self.keep_alive = _keeps_alive(special.get(b"connection"), minor)
        self.introduced: bytes | None = None

    def lines_to(self, target: bytes) -> bytes:
        """`lines` for another target."""
        return b"%b %b HTTP/1.1%b%b" % (self.method, target, self.fields.ordinary, self.added)

    def retarget(self, target: bytes) -> None:
        """Ask for another target, in origin-form."""
        self.target = target
        self.lines = self.lines_to(target)

    def reframe(self) -> None:
        """How long the body is isn't known any more: it goes on in chunks."""
        self.length = -1
        self.special = {name: value for name, value in self.special.items() if name != b"content-length"}

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name, None for none. Who the client is says the listener."""
        if self.introduced is not None and (name in IDENTITY or name.startswith(IDENTITY_PREFIXES)):
            return _value_in(self.introduced + self.added, name)
        if name == b"host":
            return self.special.get(name)
        return super().value(name)

    def drop(self, names: frozenset[bytes]) -> None:
        super().drop(names)
        if self.introduced and any(name in IDENTITY or name.startswith(IDENTITY_PREFIXES) for name in names):
            self.introduced = _kept(self.introduced, names)

    def pairs(self) -> list[Pair]:
        """The fields of the request; Host is what the request is for, also where the target said so, and who the client
        is says the listener."""
        pairs = self.fields.pairs() if self.introduced is None else self.fields.lasting()
        if self.special is not self.fields.special:
            host, length = self.special.get(b"host"), b"content-length" in self.special
            pairs = [pair for pair in pairs if pair[0] != b"host" and (length or pair[0] != b"content-length")]
            if host is not None:
                pairs.insert(0, (b"host", host))
        if self.introduced is not None:
            pairs = [*pairs, *_introduced(self.introduced)]
        return pairs + _pairs_of(self.added) if self.added else pairs

    def _normalise(self) -> None:
        """Make `target` and the start line what the next hop gets: origin-form (or "*") in HTTP/1.1.

        In absolute-form the authority wins over Host and replaces it (RFC 9112, section 3.2.2).
        """
        method, target = self.method, self.target
        if not target.startswith(b"/"):
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is not None and len(absolute[1]) <= _LONGEST_AUTHORITY and _is_authority(absolute[1]):
                self.special = {**self.special, b"host": absolute[1]}
                target = absolute[2] or (b"*" if method == b"OPTIONS" else b"/")
                self.target = target if target.startswith((b"/", b"*")) else b"/" + target
            elif not (target == b"*" and method == b"OPTIONS"):
                raise WireError(405 if method == b"CONNECT" else 400, "target_form_not_served")
        self.lines = self.lines_to(self.target)


_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[!$&'()*+,;=\-._~0-9A-Za-z%]*+)(?::[0-9]{0,5})?")


@lru_cache(maxsize=1024)
def _read_status_line(line: bytes) -> tuple[int, int]:
    """The minor version and the status. Remembered, for an origin has few."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise WireError(502, "status_line_malformed")
    return min(int(match[1]), 1), int(match[2])


@lru_cache(maxsize=4096)
def _is_authority(host: bytes) -> bool:
    """Whether this can be a host and port. Remembered, for the hosts of a gateway are few."""
    return _AUTHORITY.fullmatch(host) is not None


def _keeps_alive(connection: bytes | None, minor: int) -> bool:
    """Whether the sender means to go on with this connection (RFC 9112, section 9.3)."""
    if connection is None:
        return minor == 1
    if connection in (b"keep-alive", b"Keep-Alive"):
        return True
    named = tokens(connection)
    return b"close" not in named and (minor == 1 or b"keep-alive" in named)


_ABSOLUTE = re.compile(rb"(?:http|https)://([^/?#@:][^/?#@]*+)([/?].*)?", re.IGNORECASE | re.DOTALL)
_LONGEST_AUTHORITY = 261  # a DNS name has 253 characters at the most (RFC 1035), a port 5


class ResponseHead(Head):
    """A response head. length: bytes of body, -1 for chunked, -2 for all that comes until the connection closes."""

    __slots__ = ("_bodyless", "_line", "keep_alive", "status")

    def __init__(self, line: bytes, fields: Fields, bodyless: bool) -> None:
        self._line = line
        self._bodyless = bodyless
        self.minor, self.status = _read_status_line(line)
        self.fields = fields
        # The space behind the status must be there, with or without a reason phrase (RFC 9112, section 4).
        self.added = b""
        self.dropped = _NOTHING
        self.lines = b"HTTP/1.1" + (line[8:] if len(line) > _BARE_STATUS else line[8:] + b" ") + fields.ordinary
        self.special = special = fields.special
        self.keep_alive = _keeps_alive(special.get(b"connection"), self.minor)
        self.length = _response_length(special, self.minor, self.status, bodyless)
        if self.length == -2 or self.status == 101:
            self.keep_alive = False

    def with_fields(self, block: bytes) -> ResponseHead:
        """The same response with other field lines, CRLF between them."""
        return ResponseHead(self._line, Fields(block, _RESPONSE), self._bodyless)

    def pairs(self) -> list[Pair]:
        """The end-to-end fields: a response is handed on, so what ends at this hop is not part of it."""
        pairs = self.fields.lasting()
        if self.special is not self.fields.special:
            pairs = [pair for pair in pairs if pair[0] != b"content-length" or pair[0] in self.special]
        return pairs + _pairs_of(self.added) if self.added else pairs

    def reframe(self) -> None:
        """How long the body is isn't known any more."""
        self.special = {name: value for name, value in self.special.items() if name != b"content-length"}


# The fields of a message as ASGI has them: a head that came over the wire, or pairs that somebody made.


def value_of(headers: Any, name: bytes) -> bytes | None:
    """The first field of this lower-case name, None for none."""
    if isinstance(headers, Head):
        return headers.value(name)
    return next((value for known, value in headers if known.lower() == name), None)


def listed(headers: Any, name: bytes) -> bytes | None:
    """All fields of this lower-case name as one list (RFC 9110, section 5.3), None for none."""
    if isinstance(headers, Head):
        return headers.listed(name)
    values = [value for known, value in headers if known.lower() == name]
    return b", ".join(values) if values else None


def edited(headers: Any, drop: frozenset[bytes], add: bytes) -> Any:
    """The same without the fields of some names, and with further lines, CRLF before each."""
    if isinstance(headers, Head):
        if drop:
            headers.drop(drop)
        if add:
            headers.add(add)
        return headers
    return [pair for pair in headers if pair[0].lower() not in drop] + _pairs_of(add)


def reframed(headers: Any) -> Any:
    """The same for a body of which nobody knows how long it is."""
    if type(headers) is ResponseHead:
        headers.reframe()
        return headers
    return [pair for pair in headers if pair[0].lower() != b"content-length"]


def cookie(head: RequestHead, name: bytes) -> bytes:
    """The value of a cookie, b"" for none."""
    for pair in (head.value(b"cookie") or b"").split(b";"):
        known, _, value = pair.strip(b" \t").partition(b"=")
        if known == name:
            return value
    return b""


def parameter(target: bytes, name: bytes) -> bytes | None:
    """The value of the first query parameter of this name, decoded; None for none."""
    query = target.partition(b"?")[2].decode("latin-1")
    wanted = name.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape") if query else ()
    return next((value.encode("utf-8", "surrogateescape") for known, value in pairs if known == wanted), None)


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case."""
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def read_request(data: bytes, before: Fields | None = None) -> tuple[RequestHead, int] | None:
    """The request head at the start of data and where it ends; None while it is not whole.

    before: the fields of the request before this one on the connection. Raises WireError when the head must be refused;
    what is not whole may be hopeless all the same, and `refusal` says so.
    """
    end = data.find(b"\r\n\r\n")
    if end <= 0:
        return None
    line = data.find(b"\r\n")
    block = data[line + 2 : end]
    fields = before if before is not None and block == before.block else Fields(block, _REQUEST)
    return RequestHead(data[:line], fields), end + 4


def read_response(data: bytes, bodyless: bool, before: Fields | None = None) -> tuple[ResponseHead, int] | None:
    """The response head at the start of data and where it ends; None while it is not whole.

    bodyless: the request was HEAD, so no body follows whatever the fields say. before: the fields of the response
    before this one on the connection; a resource that is asked for often has the same for as long as its Date lasts.
    Raises WireError as `read_request` does.
    """
    end = data.find(b"\r\n\r\n")
    if end <= 0:
        return None
    line = data.find(b"\r\n")
    block = data[line + 2 : end]
    if before is not None and block == before.block:
        fields = before
    else:
        try:
            fields = Fields(block, _RESPONSE)
        except WireError:
            mended = _SPACED.sub(rb"\1:", block)
            if mended == block:
                raise
            fields = Fields(mended, _RESPONSE)
    return ResponseHead(data[:line], fields, bodyless), end + 4


# White space between a name and its colon: refused in requests, removed from responses (RFC 9112, section 5.1).
_SPACED = re.compile(rb"(?:(?<=\n)|\A)(" + _TOKEN + rb"++)[ \t]++:")


def is_hopeless(data: bytes) -> bool:
    """Whether these bytes, which hold no whole head, can't become one: a line that ends in another way than CRLF."""
    return b"\x00" in data or _BARE.search(data) is not None


def refusal(data: bytes, max_line: int, max_head: int, max_fields: int = 1 << 30) -> WireError | None:
    """Why these first bytes can't become a request head; None while they still may.

    Only asked when `read_request` found no head: it may be slow, and it is what tells 414 from 431 from 400.
    """
    line, newline, _ = data.partition(b"\r\n")
    if len(line) > max_line:
        return WireError(414 if line.count(b" ") else 400, "request_line_too_long")
    if _BARE.search(data):
        return WireError(400, "bare_line_ending")
    if newline and line and not _REQUEST_LINE.fullmatch(line):
        return _bad_request_line(line)
    if len(data) > max_head:
        return WireError(431, "header_fields_too_large")
    if data.count(b"\r\n") > max_fields + 1:
        return WireError(431, "too_many_header_fields")
    if b"\x00" in data:
        return WireError(400, "control_character")
    return None


def _bad_request_line(line: bytes) -> WireError:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN_ONLY.fullmatch(parts[0]):
        return WireError(400, "request_line_malformed")
    if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]) and not parts[2].startswith(b"HTTP/1."):
        return WireError(505, "version_not_supported")
    if not re.fullmatch(rb"HTTP/1\.[0-9]", parts[2]):
        return WireError(400, "version_malformed")
    return WireError(400, "target_malformed")


def _content_length(special: Mapping[bytes, bytes]) -> int | None:
    text = special.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:  # 18 digits stay below 2^63
        raise WireError(400, "content_length_invalid")
    return int(text)


def _request_length(special: Mapping[bytes, bytes], minor: int) -> int:
    """How the body is framed (RFC 9112, section 6.3), by the strictest reading: two ways to read it is one too many."""
    coding = special.get(b"transfer-encoding")
    if coding is None:
        return _content_length(special) or 0
    if b"content-length" in special:
        raise WireError(400, "two_framings")
    if not minor:
        raise WireError(400, "transfer_encoding_in_http10")
    if coding.lower() != b"chunked":
        raise WireError(501 if tokens(coding)[-1] == b"chunked" else 400, "transfer_encoding_unknown")
    return -1


def _response_length(special: Mapping[bytes, bytes], minor: int, status: int, bodyless: bool) -> int:
    length = _content_length(special)
    coding = special.get(b"transfer-encoding")
    if coding is not None and (length is not None or not minor or coding.lower() != b"chunked"):
        raise WireError(502, "framing_ambiguous")
    if bodyless or status in _BODYLESS or status < 200:
        return 0
    if length is not None:
        return length
    return -2 if coding is None else -1


_BODYLESS = (204, 304)
_BARE_STATUS = len(b"HTTP/1.1 200")


_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:[ \t]*+;[ \t]*+" + _TOKEN + rb"++(?:[ \t]*+=[ \t]*+"
    rb"(?:" + _TOKEN + rb'++|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"))?+)*+\r\n'
)
# A size line with its extensions: HAProxy caps it at its buffer, we at what a person could mean. It also bounds
# what an incomplete line makes us hold.
_MAX_SIZE_LINE = 512
_MAX_TRAILERS = 8192


class ChunkedBody:
    """A decoder of the chunked coding (RFC 9112, section 7.1): exact CRLFs, bounded size lines, trailers apart.

    `feed` returns the payload in pieces. After `done`, `trailers` holds the trailer fields and `rest` what follows.
    """

    __slots__ = ("_held", "_left", "_state", "done", "rest", "trailers")

    _SIZE, _DATA, _CRLF, _TRAILERS = range(4)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._left = 0
        self._held = b""
        self.done = False
        self.trailers: list[Pair] = []
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payload found in data. Raises WireError(400, ...) on anything but an exact chunk."""
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        size = len(data)
        while at < size:
            if self._state == self._DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = self._CRLF
            elif self._state == self._CRLF:
                if size - at < 2 and data[at] == 13:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise WireError(400, "chunk_end_missing")
                at += 2
                self._state = self._SIZE
            elif self._state == self._SIZE:
                match = _SIZE_LINE.match(data, at)
                if match is None:
                    if b"\r\n" in data[at:] or size - at > _MAX_SIZE_LINE or not _may_be_size(data[at:]):
                        raise WireError(400, "chunk_size_malformed")
                    break
                if match.end() - at > _MAX_SIZE_LINE:
                    raise WireError(400, "chunk_size_malformed")
                at = match.end()
                self._left = int(match[1], 16)
                self._state = self._DATA if self._left else self._TRAILERS
            else:
                match = _TRAILERS.match(data, at)
                if match is None:
                    if b"\r\n\r\n" in data[at:] or size - at > _MAX_TRAILERS or _BARE.search(data, at):
                        raise WireError(400, "trailer_malformed")
                    break
                if match.end() - at > _MAX_TRAILERS:
                    raise WireError(400, "trailer_malformed")
                self.trailers = [_pair(line) for line in match[1].split(b"\r\n")[:-1]]
                self.rest = data[match.end() :]
                self.done = True
                return pieces
        self._held = data[at:]
        return pieces


# Fields that must not come after the body: they frame, route, authenticate or modify the message (RFC 9110, section
# 6.5.1; Go's list, with cookies and Via).
_NEVER_TRAILING = HOP_BY_HOP | IDENTITY | frozenset(
    (
        b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range", b"content-type",
        b"cookie", b"date", b"expect", b"host", b"location", b"max-forwards", b"pragma", b"range", b"set-cookie",
        b"via", b"www-authenticate",
    )
)  # fmt: skip


def passable_trailers(trailers: list[Pair], head: Head) -> list[Pair]:
    """The trailer fields that may be handed on behind a message with this head."""
    not_these = head.fields.named | head.dropped
    return [pair for pair in trailers if _may_trail(pair[0]) and pair[0] not in not_these]


def announced_trailers(head: Head) -> bytes:
    """The value of Trailer for the next hop, b"" for none."""
    announced = head.special.get(b"trailer")
    if announced is None or head.length != -1:
        return b""
    names = [name for name in tokens(announced) if _TOKEN_ONLY.fullmatch(name) and _may_trail(name)]
    return b", ".join([name for name in names if name not in head.dropped])


def _may_trail(name: bytes) -> bool:
    return name not in _NEVER_TRAILING and not name.startswith((b"if-", *IDENTITY_PREFIXES)) and _SPOOF not in name


def trailer_section(trailers: list[Pair]) -> bytes:
    """The last chunk, these fields behind it, and the end (RFC 9112, section 7.1)."""
    return b"".join((b"0\r\n", *[b"%b: %b\r\n" % pair for pair in trailers], b"\r\n"))


def _pairs_of(lines: bytes) -> list[Pair]:
    """The pairs that these lines say, CRLF before each."""
    return [_pair(line) for line in lines.split(b"\r\n")[1:]]


@lru_cache(maxsize=256)
def _introduced(lines: bytes) -> tuple[Pair, ...]:
    """The pairs that the listener's lines say. Remembered, for those of a connection are mostly the same."""
    return tuple(_pairs_of(lines))


def _pair(line: bytes) -> Pair:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


_SIZE_START = re.compile(rb"[0-9A-Fa-f]{1,15}(?:\r|[ \t;].*)?", re.DOTALL)


def _may_be_size(data: bytes) -> bool:
    return _SIZE_START.fullmatch(data) is not None and not _BARE.search(data)


def is_field(name: bytes, value: bytes) -> bool:
    """Whether this pair can stand on the wire as one field line."""
    return _TOKEN_ONLY.fullmatch(name) is not None and _VALUE_ONLY.fullmatch(value) is not None


def is_target(target: bytes) -> bool:
    """Whether this can stand in a request line as the target."""
    return _TARGET_ONLY.fullmatch(target) is not None


def is_authority(host: bytes) -> bool:
    """Whether this can be a host and port."""
    return len(host) <= _LONGEST_AUTHORITY and _is_authority(host)


def is_method(method: bytes) -> bool:
    """Whether this can be the method of a request."""
    return _TOKEN_ONLY.fullmatch(method) is not None


_TARGET_ONLY = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]++")
