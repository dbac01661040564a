"""Heads of requests and responses: read, asked, changed on their way, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from gateway.wire.fields import REQUEST_LEXICON, RESPONSE_LEXICON, Fields
from gateway.wire.framing import keeps_alive, request_length, response_length
from gateway.wire.grammar import (
    LONGEST_AUTHORITY,
    TOKEN,
    WireError,
    find_bare_line_ending,
    is_method,
    match_request_line,
    match_status_line,
    well_formed_authority,
)
from gateway.wire.lines import Pair, has_any, lines_without, pairs_of, value_in
from gateway.wire.names import IDENTITY, IDENTITY_PREFIXES, NO_NAMES

_ABSOLUTE = re.compile(rb"(?:http|https)://([^/?#@:][^/?#@]*+)([/?].*)?", re.IGNORECASE | re.DOTALL)
# White space between a name and its colon: refused in requests, removed from responses (RFC 9112, section 5.1).
_SPACED = re.compile(rb"(?:(?<=\n)|\A)(" + TOKEN + rb"++)[ \t]++:")
# What a target or a change of the body may have made another than the fields say.
_OF_THE_MESSAGE = frozenset((b"host", b"content-length"))
_BARE_STATUS = len(b"HTTP/1.1 200")


class Head:
    """A message head: an iterable of (lower-case name, value) pairs, as ASGI has it, that hasn't been taken apart yet.

    start: the start line as it goes on. special: as in Fields. added: what `add` has put behind the fields, CRLF before
    each line. Each message has a head of its own, so whom it passes may change it; who sends it on puts the parts
    together, once.
    """

    __slots__ = ("added", "dropped", "fields", "length", "minor", "special", "start")

    added: bytes
    dropped: frozenset[bytes]
    length: int
    minor: int
    fields: Fields
    special: dict[bytes, bytes]
    start: bytes

    @property
    def lines(self) -> bytes:
        """The start line and every ordinary field, without the last CRLF."""
        return self.start + self.fields.ordinary + self.added

    def pairs(self) -> list[Pair]:
        """The fields of the message, in order."""
        return self.fields.pairs()

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name, None for none."""
        if name == b"content-length":
            return self.special.get(name)
        value = self.fields.value(name)
        if value is None and self.added:
            value = value_in(self.added, name)
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
            added = [value for known, value in pairs_of(self.added) if known == name]
            if added:
                return b", ".join(added if value is None else [value, *added])
        return value

    def drop(self, names: frozenset[bytes]) -> None:
        """Remove the fields of these lower-case names, also from trailers that are still to come: some servers put
        those among the others. Not for Host and what frames the message."""
        if self.length < 0:  # only then there may be any
            self.dropped |= names
        fields = self.fields.without(names)
        if fields is not self.fields:
            if not names.isdisjoint(self.special):
                self.special = {name: value for name, value in self.special.items() if name not in names}
            self.fields = fields
        if self.added and has_any(self.added.lower(), names):
            self.added = lines_without(self.added, names)

    def add(self, lines: bytes) -> None:
        """Put these field lines behind the others, CRLF before each."""
        self.added += lines

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
        match = match_request_line(line)
        if match is None:
            raise _bad_request_line(line)
        self.method, target, version = match.groups()
        self.target = target
        self.minor = minor = 0 if version == b"0" else 1  # a later one is read as ours (RFC 9110, section 2.5)
        self.fields = fields
        self.added = b""
        self.dropped = NO_NAMES
        self.start = line
        self.special = special = fields.special
        host = special.get(b"host")
        if host is None:
            if minor:
                raise WireError(400, "host_missing")
        elif len(host) > LONGEST_AUTHORITY or not well_formed_authority(host):
            raise WireError(400, "host_invalid")
        self.length = request_length(special, minor)
        if version != b"1" or not target.startswith(b"/"):
            self._normalise()
        self.keep_alive = keeps_alive(special.get(b"connection"), minor)
        self.introduced: bytes | None = None

    def start_to(self, target: bytes) -> bytes:
        """`start` for another target."""
        return b"%b %b HTTP/1.1" % (self.method, target)

    def retarget(self, target: bytes) -> None:
        """Ask for another target, in origin-form."""
        self.target = target
        self.start = self.start_to(target)

    def reframe(self) -> None:
        """How long the body is isn't known any more: it goes on in chunks."""
        self.length = -1
        self.special = {name: value for name, value in self.special.items() if name != b"content-length"}

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name, None for none. Who the client is says the listener."""
        if self.introduced is not None and (name in IDENTITY or name.startswith(IDENTITY_PREFIXES)):
            return value_in(self.introduced + self.added, name)
        if name in _OF_THE_MESSAGE:
            return self.special.get(name)
        value = self.fields.value(name)
        if value is None and self.added:
            value = value_in(self.added, name)
        return value

    def drop(self, names: frozenset[bytes]) -> None:
        Head.drop(self, names)  # super() would be another 0.2 us
        if self.introduced and _are_of_clients(names):
            self.introduced = lines_without(self.introduced, names)

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
        return pairs + pairs_of(self.added) if self.added else pairs

    def _normalise(self) -> None:
        """Make `target` and the start line what the next hop gets: origin-form (or "*") in HTTP/1.1.

        In absolute-form the authority wins over Host and replaces it (RFC 9112, section 3.2.2).
        """
        method, target = self.method, self.target
        if not target.startswith(b"/"):
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is not None and len(absolute[1]) <= LONGEST_AUTHORITY and well_formed_authority(absolute[1]):
                self.special = {**self.special, b"host": absolute[1]}
                target = absolute[2] or (b"*" if method == b"OPTIONS" else b"/")
                self.target = target if target.startswith((b"/", b"*")) else b"/" + target
            elif not (target == b"*" and method == b"OPTIONS"):
                raise WireError(405 if method == b"CONNECT" else 400, "target_form_not_served")
        self.start = self.start_to(self.target)


class ResponseHead(Head):
    """A response head. length: bytes of body, -1 for chunked, -2 for all that comes until the connection closes."""

    __slots__ = ("_bodyless", "_line", "keep_alive", "status")

    def __init__(self, line: bytes, fields: Fields, bodyless: bool) -> None:
        self._line = line
        self._bodyless = bodyless
        self.minor, self.status = _read_status_line(line)
        self.fields = fields
        self.added = b""
        self.dropped = NO_NAMES
        # The space behind the status must be there, with or without a reason phrase (RFC 9112, section 4).
        self.start = b"HTTP/1.1" + (line[8:] if len(line) > _BARE_STATUS else line[8:] + b" ")
        self.special = special = fields.special
        self.keep_alive = keeps_alive(special.get(b"connection"), self.minor)
        self.length = response_length(special, self.minor, self.status, bodyless)
        if self.length == -2 or self.status == 101:
            self.keep_alive = False

    def with_fields(self, block: bytes) -> ResponseHead:
        """The same response with other field lines, CRLF between them."""
        return ResponseHead(self._line, Fields(block, RESPONSE_LEXICON), self._bodyless)

    def pairs(self) -> list[Pair]:
        """The end-to-end fields: a response is handed on, so what ends at this hop is not part of it."""
        pairs = self.fields.lasting()
        if self.special is not self.fields.special:
            pairs = [pair for pair in pairs if pair[0] != b"content-length" or pair[0] in self.special]
        return pairs + pairs_of(self.added) if self.added else pairs

    def reframe(self) -> None:
        """How long the body is isn't known any more."""
        self.special = {name: value for name, value in self.special.items() if name != b"content-length"}


@lru_cache(maxsize=1024)
def _are_of_clients(names: frozenset[bytes]) -> bool:
    """Whether any of these lower-case names says who the client is. Remembered: layers always drop the same."""
    return any(name in IDENTITY or name.startswith(IDENTITY_PREFIXES) for name in names)


@lru_cache(maxsize=256)
def _introduced(lines: bytes) -> tuple[Pair, ...]:
    """The pairs that the listener's lines say. Remembered, for those of a connection are mostly the same."""
    return tuple(pairs_of(lines))


@lru_cache(maxsize=1024)
def _read_status_line(line: bytes) -> tuple[int, int]:
    """The minor version and the status. Remembered, for an origin has few."""
    match = match_status_line(line)
    if match is None:
        raise WireError(502, "status_line_malformed")
    return min(int(match[1]), 1), int(match[2])


def read_request(
    data: bytes, before: Fields | None = None, make: Callable[[bytes, Fields], RequestHead] = RequestHead
) -> tuple[RequestHead, int] | None:
    """The request head at the start of data and where it ends; None while it is not whole.

    before: the fields of the request before this one on the connection. make: what reads the first line. Raises
    WireError when the head must be refused; what is not whole may be hopeless all the same, and `refusal` says so.
    """
    end = data.find(b"\r\n\r\n")
    if end <= 0:
        return None
    line = data.find(b"\r\n")
    block = data[line + 2 : end]
    fields = before if before is not None and block == before.block else Fields(block, REQUEST_LEXICON)
    return make(data[:line], fields), end + 4


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
            fields = Fields(block, RESPONSE_LEXICON)
        except WireError:
            mended = _SPACED.sub(rb"\1:", block)
            if mended == block:
                raise
            fields = Fields(mended, RESPONSE_LEXICON)
    return ResponseHead(data[:line], fields, bodyless), end + 4


def is_hopeless(data: bytes) -> bool:
    """Whether these bytes, which hold no whole head, can't become one: a line that ends in another way than CRLF."""
    return b"\x00" in data or find_bare_line_ending(data) is not None


def refusal(data: bytes, max_line: int, max_head: int, max_fields: int = 1 << 30) -> WireError | None:
    """Why these first bytes can't become a request head; None while they still may.

    Only asked when `read_request` found no head: it may be slow, and it is what tells 414 from 431 from 400.
    """
    line, newline, _ = data.partition(b"\r\n")
    if len(line) > max_line:
        return WireError(414 if line.count(b" ") else 400, "request_line_too_long")
    if find_bare_line_ending(data):
        return WireError(400, "bare_line_ending")
    if newline and line and not match_request_line(line):
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
    if len(parts) != 3 or not is_method(parts[0]):
        return WireError(400, "request_line_malformed")
    if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]) and not parts[2].startswith(b"HTTP/1."):
        return WireError(505, "version_not_supported")
    if not re.fullmatch(rb"HTTP/1\.[0-9]", parts[2]):
        return WireError(400, "version_malformed")
    return WireError(400, "target_malformed")
