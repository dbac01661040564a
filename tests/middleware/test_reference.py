from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from gateway.config.quantities import Duration
from gateway.config.section import Section
from gateway.middleware import MIDDLEWARE
from gateway.middleware.middleware import Middleware, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.reference import Option, described, listing, markdown, options, plain, summary

CONF = Path(__file__).parents[2] / "conf"


class Inner(Section):
    """One of several."""

    name: str
    """Its name."""


class Options(Base):
    kind: Literal["sample"] = "sample"
    wait: Duration = 1.5
    """How long, a | b."""
    mode: Literal["a", "b"] = "a"
    """How."""
    inner: tuple[Inner, ...] = ()
    """More."""
    maybe: int | None = None
    """Perhaps."""


class Sample(Middleware):
    """Does this and
    that. Holds back nothing.

    Order: anywhere."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "sample" }'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def test_options_say_their_types_and_defaults_as_they_are_written() -> None:
    *own, name = options(Sample)
    assert own == [
        Option("wait", "string", '"1500ms"', "How long, a | b."),
        Option("mode", '"a" or "b"', '"a"', "How."),
        Option("inner", "array of tables", "[]", "More."),
        Option("inner[].name", "string", "required", "Its name."),
        Option("maybe", "integer", "", "Perhaps."),
    ]
    assert name.name == "name"


def test_a_kind_is_described_in_both_forms() -> None:
    assert summary(Sample) == "Does this and that."
    assert listing({"sample": Sample, "b": Sample}) == "b       Does this and that.\nsample  Does this and that."
    text = plain("sample", Sample)
    assert text.startswith("sample\n\nDoes this and that. Holds back nothing.\n\nOrder: anywhere.\n\nExample:\n")
    assert '  wait (string) = "1500ms"\n      How long, a | b.\n' in text
    assert "  inner[].name (string), required\n" in text
    assert '| `wait` | string | `"1500ms"` | How long, a \\| b. |' in described("sample", Sample)


def test_the_committed_reference_is_what_the_code_says() -> None:
    assert (CONF / "middleware.md").read_text() == markdown(MIDDLEWARE), (
        "write it anew: gateway middleware --markdown > conf/middleware.md"
    )


@pytest.mark.parametrize("kind", MIDDLEWARE)
def test_every_kind_says_what_it_does_where_it_belongs_and_what_it_may_be_told(kind: str) -> None:
    made = MIDDLEWARE[kind]
    assert (made.__doc__ or "").strip() and "Order:" in (made.__doc__ or "")
    for one in options(made):
        assert one.text.endswith((".", ")", '"')), f"{kind}.{one.name} has no sentence"
