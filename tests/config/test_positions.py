"""Every key that tomllib finds has a place, and at that place the key stands."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.positions import positions
from gateway.config.problems import KeyPath

from .conftest import UNHURRIED


def paths(value: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """All key paths of parsed TOML."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


def assert_placed(text: str) -> None:
    data = tomllib.loads(text)
    places = positions(text)
    assert set(places) == set(paths(data))
    lines = text.replace("\r\n", "\n").split("\n")
    for path, (line, column) in places.items():
        rest = lines[line - 1][column - 1 :]
        assert rest and not rest[0].isspace()
        # The item of an array of tables stands where the name of the array does.
        name = next(part for part in reversed(path) if isinstance(part, str))
        if isinstance(path[-1], str):
            assert key_at(rest) == name, path


def key_at(rest: str) -> str:
    found = re.match(r"""[A-Za-z0-9_-]+|'[^']*'|"(?:[^"\\]|\\.)*\"""", rest)
    assert found, rest
    key = next(iter(tomllib.loads(f"{found[0]} = 0")))
    return str(key)


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("a = 1", ("a",), (1, 1)),
        ("\n\n  a = 1", ("a",), (3, 3)),
        ("[a]\nb = 1", ("a",), (1, 2)),
        ("[a]\nb = 1", ("a", "b"), (2, 1)),
        ("[ a . b ]\nc = 1", ("a", "b"), (1, 7)),
        ("[a.b]\n[a.c]", ("a",), (1, 2)),
        ("[a.b]\n[a.c]", ("a", "c"), (2, 4)),
        ("[a.b]\n[a]\nx = 1", ("a", "x"), (3, 1)),
        ("a.b.c = 1", ("a", "b", "c"), (1, 5)),
        ("a.b = 1\na.c = 2", ("a", "c"), (2, 3)),
        ("[[a]]\n[[a]]\nx = 1", ("a", 1), (2, 3)),
        ("[[a]]\n[[a]]\nx = 1", ("a", 1, "x"), (3, 1)),
        ("[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2", ("a", 1, "b", "x"), (6, 1)),
        ("[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[[a.b]]\nx = 1", ("a", 1, "b", 0, "x"), (6, 1)),
        ("a = [1, 22, 333]", ("a", 2), (1, 13)),
        ("a = [\n  1, # one ]\n  2,\n]", ("a", 1), (3, 3)),
        ("a = [[], [1]]", ("a", 1, 0), (1, 11)),
        ("a = { b = 1, c.d = 2 }", ("a", "c", "d"), (1, 16)),
        ("a = [{ b = 1 }, { b = 2 }]", ("a", 1, "b"), (1, 19)),
        ("a = [{}, {}]", ("a", 1), (1, 10)),
        ("\"a b\".'c d' = 1", ("a b", "c d"), (1, 7)),
        (r'"\u00e9\"" = 1', ('é"',), (1, 1)),
        ("'' = 1", ("",), (1, 1)),
        ('x = "]#"\na = 1', ("a",), (2, 1)),
        ('x = "\\\\"\na = 1', ("a",), (2, 1)),
        ('x = """\na = 0 \\"""\n"""\na = 1', ("a",), (4, 1)),
        ('x = """"quoted""""" # five quotes\na = 1', ("a",), (2, 1)),
        ("x = '''\na = 0 \\'''\na = 1", ("a",), (3, 1)),
        ("x = ''''quoted'''''\na = 1", ("a",), (2, 1)),
        ('x = ""\ny = \'\'\nz = """"""\na = 1', ("a",), (4, 1)),
        ("x = 1979-05-27 07:32:00 # a date\na = 1", ("a",), (2, 1)),
        ("x = [1979-05-27 07:32:00, 2]", ("x", 1), (1, 27)),
        ("x = -inf#\na = 1", ("a",), (2, 1)),
        ("x = 'ü'\r\na = [1,\r\n2]\r\n", ("a", 1), (3, 1)),
        ("x = { a = 'ü', b = 1 }", ("x", "b"), (1, 16)),
    ],
)
def test_place(text: str, path: KeyPath, place: tuple[int, int]) -> None:
    assert positions(text)[path] == place
    assert_placed(text)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment"])
def test_nothing(text: str) -> None:
    assert positions(text) == {}


@pytest.mark.parametrize("text", ["a = 1\rb = 2", "a = [1", "[a", "= 1", "a.b"])
def test_not_toml(text: str) -> None:
    """The scanner is never asked, but it must not loop for ever either."""
    with pytest.raises((ValueError, IndexError)):
        tomllib.loads(text)
    try:
        positions(text)
    except (ValueError, IndexError):
        pass


# Documents in every style of TOML, from the same strategy of data.

NASTY = ["", "]", "}", "#", "=", ",", "[x]", "a = 1", "${A}", '"', "'", "\\", "é", "\n[x]\ny = 1\n", '"""'[:2], "\t"]
KEYS = st.one_of(st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=4), st.sampled_from(NASTY))
SCALARS = st.one_of(
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.floats(allow_nan=False),
    st.lists(st.sampled_from(NASTY), max_size=4).map("".join),
    st.datetimes().map(lambda value: value.replace(microsecond=0)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)
Choose = Callable[[int], int]


class Writer:
    """Writes TOML, taking one of the possible styles at each step."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose

    def blank(self, *, lines: bool) -> str:
        styles = ["", " ", "\t "]
        if lines:
            styles += ["\n \n", ' # ] } = " \'\'\' """ [x]\n']
        return styles[self.choose(len(styles))]

    def key(self, key: str) -> str:
        styles = [self.basic(key)]
        if re.fullmatch(r"[A-Za-z0-9_-]+", key):
            styles.append(key)
        if "'" not in key and key.isprintable():
            styles.append(f"'{key}'")
        return styles[self.choose(len(styles))]

    def basic(self, text: str) -> str:
        names = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
        return '"' + "".join(names.get(char, char) for char in text) + '"'

    def text(self, text: str) -> str:
        long = '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'
        raw = f"'''\n{text}'''" if "''" not in text else long
        short = f"'{text}'" if "'" not in text and "\n" not in text else long
        # Quotes right before the closing ones need no escape.
        bold = long.replace('\\""""', '""""') if text.endswith('"') and not text.endswith('""') else long
        return [self.basic(text), long, raw, short, bold][self.choose(5)]

    def value(self, value: Any, *, lines: bool = True) -> str:
        match value:
            case bool():
                return "true" if value else "false"
            case str():
                return self.text(value)
            case list():
                items = [self.blank(lines=True) + self.value(item) + self.blank(lines=True) for item in value]
                trailing = "," if items and self.choose(2) else ""
                return f"[{','.join(items)}{trailing}{self.blank(lines=True)}]"
            case dict():
                pairs = [self.pair(key, item) for key, item in value.items()]
                return "{" + ",".join(pairs) + self.blank(lines=False) + "}"
            case int():
                return str(value)
            case float():
                return repr(value) if "e" not in repr(value) else repr(value).replace("e+", "e")
            case _:
                return str(value.isoformat(sep=" T"[self.choose(2)]))

    def pair(self, key: str, value: Any) -> str:
        name = self.key(key)
        while isinstance(value, dict) and len(value) == 1 and self.choose(2):  # a.b = 1
            key, value = next(iter(value.items()))
            name += self.blank(lines=False) + "." + self.blank(lines=False) + self.key(key)
        equals = self.blank(lines=False) + "=" + self.blank(lines=False)
        return self.blank(lines=False) + name + equals + self.value(value) + self.blank(lines=False)

    def table(self, table: dict[str, Any], header: str = "") -> str:
        """The table's own pairs first, then those of its tables that get a header of their own."""
        own, below = "", ""
        for key, value in table.items():
            name = header + ("." if header else "") + self.blank(lines=False) + self.key(key) + self.blank(lines=False)
            if isinstance(value, dict) and self.choose(2):
                below += f"[{name}]{self.blank(lines=False)}\n" + self.table(value, name)
            elif isinstance(value, list) and value and all(isinstance(i, dict) for i in value) and self.choose(2):
                for item in value:
                    below += f"[[{name}]]{self.blank(lines=False)}\n" + self.table(item, name)
            else:
                own += self.pair(key, value) + "\n" + self.blank(lines=True)
        return own + "\n" + below


@UNHURRIED
@given(DOCUMENTS, st.data())
def test_any_document(document: dict[str, Any], data: st.DataObject) -> None:
    text = Writer(lambda count: data.draw(st.integers(0, count - 1))).table(document)
    assert tomllib.loads(text) == document  # else the writer is wrong
    assert_placed(text)
    assert_placed(text.replace("\n", "\r\n"))
