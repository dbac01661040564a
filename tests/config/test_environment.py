"""References to the environment: replaced, defaulted, escaped, refused."""

from __future__ import annotations

import pytest

from gateway.config.environment import Expanded, as_read, expand, expand_text
from gateway.config.problems import Problem

ENVIRON = {"A": "1", "B": "two", "EMPTY": "", "LOOP": "${A}"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}y${B}z", "x1ytwoz"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-:8080}", ":8080"),
        ("${B:-default}", "two"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),  # as in a shell: ":-" also stands in for an empty one
        ("$${A}", "${A}"),
        ("$${A} ${A}", "${A} 1"),
        ("$A {A} $", "$A {A} $"),
        ("${LOOP}", "${A}"),  # what comes from the environment is not looked at again
    ],
)
def test_expanded(text: str, expanded: str) -> None:
    assert expand_text(text, ENVIRON) == (expanded, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", "the environment variable NONE is not set, and no default is given"),
        ("${A", '"${A" has no closing brace; "$${" is a plain "${"'),
        ("${}", '"${}" names no environment variable; "$${" is a plain "${"'),
        ("${A B}", '"${A B}" names no environment variable; "$${" is a plain "${"'),
        ("${A-x}", '"${A-x}" names no environment variable; "$${" is a plain "${"'),
        ("${NONE:-${A}}", 'the default in "${NONE:-${A}" can\'t refer to another variable'),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert expand_text(text, ENVIRON)[1] == [message]


def test_each_unset_name_is_reported_at_its_place() -> None:
    data, problems = expand({"a": ["${B}", {"b": "${X}-${Y}"}], "c": 3}, ENVIRON)
    assert data == {"a": ["two", {"b": "-"}], "c": 3}
    message = "the environment variable {} is not set, and no default is given"
    assert problems == [Problem(("a", 1, "b"), message.format(name)) for name in "XY"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Expanded("2"), 2),
        (Expanded("-2"), -2),
        (Expanded("true"), True),
        (Expanded("false"), False),
        (Expanded("auto"), "auto"),
        (Expanded("0.5"), 0.5),
        (Expanded("1e3"), "1e3"),
        (Expanded(".5"), ".5"),
        (Expanded("٣"), "٣"),
        ("2", "2"),  # written as a string in the file: a mistake where a number is wanted
        (2, 2),
    ],
)
def test_read_as_number_or_boolean(value: object, read: object) -> None:
    assert as_read(value) == read


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ("plain", "plain"),
        ("${B}", "two"),
        ({"env": "B"}, "two"),
        ({"env": "B", "default": "x"}, "two"),
        ({"env": "NONE", "default": "x"}, "x"),
        ({"env": "NONE", "default": "${B}"}, "two"),
        ({"env": "EMPTY", "default": "x"}, "x"),  # as with ":-"
        ({"env": "EMPTY"}, ""),
        ({"env": "LOOP"}, "${A}"),
        ({"file": "/run/${B}"}, {"file": "/run/two"}),
    ],
)
def test_secrets(written: object, secret: object) -> None:
    assert expand({"sticky": {"secret": written}}, ENVIRON) == ({"sticky": {"secret": secret}}, [])


@pytest.mark.parametrize("text", ["hush${A", "hush${", "${hush!}", "${NONE:-hush${A}}"])
def test_no_part_of_a_secret_is_quoted(text: str) -> None:
    for written in (text, {"env": "NONE", "default": text}):
        _, [problem] = expand({"secret": written}, ENVIRON)
        assert "hush" not in problem.message and "${...}" in problem.message
        assert problem.path == ("secret",)


def test_a_secret_whose_variable_is_not_set() -> None:
    message = "the environment variable NONE is not set, and no default is given"
    assert expand({"secret": {"env": "NONE"}}, ENVIRON) == ({"secret": ""}, [Problem(("secret",), message)])
