"""What a refused client reads: in the form it accepts, with nothing of its own request in it."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reasons import REASONS
from gateway.refusals import HTML, PHRASES, PLAIN, PROBLEM, TEXT, Page, Refusal, Style, accept_in, preferred, refuse

ID = "0123456789abcdef"
FORMS = (b"text/plain", b"text/html", b"application/problem+json", b"application/json")


def refused(
    reason: str = "no_route", accept: bytes = b"", status: int = 404, style: Style = PLAIN, above: Style | None = None
) -> Refusal:
    return refuse(status, reason, accept, ID, style, above)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", b"text/plain"),
        (b"*/*", b"text/plain"),  # curl
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", b"text/html"),  # browsers
        (b"application/json, text/plain, */*", b"application/json"),  # axios
        (b"application/problem+json", b"application/problem+json"),
        (b"application/json", b"application/json"),
        (b"application/problem+json, application/json;q=0.9", b"application/problem+json"),
        (b"application/*", b"application/problem+json"),
        (b"text/*", b"text/plain"),
        (b"text/html", b"text/html"),
        (b"TEXT/HTML", b"text/html"),
        (b"text/html;charset=utf-8", b"text/html"),
        (b"text/html ; q=0.5 , text/plain ; q=0.4", b"text/html"),
        (b"text/html;q=0.4, text/plain;q=0.5", b"text/plain"),
        (b"text/html;q=0.4, text/plain;Q=0.5", b"text/plain"),
        (b"text/html;level=1;q=0.4, application/json;q=0.41", b"application/json"),
        (b"text/html, application/json", b"text/html"),
        (b"application/json, text/html", b"application/json"),
        (b"application/json;q=0.9,text/html;q=0.9", b"application/json"),
        (b"text/html;q=0.9, */*;q=0.9", b"text/html"),  # what is named goes before what a wildcard covers
        (b"text/html;q=0.1, */*;q=0.9", b"text/plain"),
        (b"text/*;q=0.5, application/json;q=0.4", b"text/plain"),
        (b"text/*;q=0.5, text/plain;q=0.1", b"text/html"),
        (b"text/*;q=0.5, text/plain;q=0, text/html;q=0", b"text/plain"),
        (b"*/*, text/plain;q=0", b"text/html"),
        (b"*/*;q=0.5, application/json;q=0", b"text/plain"),
        (b"text/html;q=0", b"text/plain"),
        (b"text/html;q=0.000, application/json;q=0.001", b"application/json"),
        (b"image/png", b"text/plain"),
        (b"text/html;q=1.000", b"text/html"),
        (b"text/html;q=2", b"text/plain"),  # no weights: as if they weren't there
        (b"text/html;q=-1", b"text/plain"),
        (b"text/html;q=1.001", b"text/plain"),
        (b"text/html;q=0.5555, application/json;q=0.1", b"application/json"),
        (b"text/html;q=nan", b"text/plain"),
        (b"text/html;q=1e9", b"text/plain"),
        (b"text/html;q=", b"text/plain"),
        (b"text/html, text/html;q=0", b"text/html"),
        (b",,;,=,;q=1,text/html", b"text/html"),
        (b"text", b"text/plain"),
        (b"*", b"text/plain"),
        (b"\x80\xff/\x00", b"text/plain"),
        (b"text/html," + b"x" * 1000, b"text/html"),
        (b"x" * 1000 + b",text/html", b"text/plain"),
        (b'text/x;a="b,c", text/html', b"text/html"),
    ],
)
def test_the_form_is_the_one_the_client_likes_best(accept: bytes, expected: bytes) -> None:
    assert preferred(accept) == expected


@given(
    st.lists(st.tuples(st.sampled_from([*FORMS, b"*/*", b"text/*", b"image/png"]), st.integers(0, 1000)), max_size=6)
)
def test_a_form_with_a_higher_weight_is_never_passed_over(ranges: list[tuple[bytes, int]]) -> None:
    accept = b", ".join(b"%b;q=%d.%03d" % (name, weight // 1000, weight % 1000) for name, weight in ranges)
    chosen = preferred(accept)
    weights: dict[bytes, int] = {}
    for name, weight in ranges:
        weights.setdefault(name, weight)

    def weight_of(form: bytes) -> int:
        covering = (form, form.partition(b"/")[0] + b"/*", b"*/*")
        return next((weights[name] for name in covering if name in weights), 0)

    assert weight_of(chosen) == max(map(weight_of, FORMS))


@given(st.binary(max_size=2000))
def test_any_accept_has_an_answer(accept: bytes) -> None:
    assert preferred(accept) in FORMS


def test_a_hostile_accept_is_not_worth_it() -> None:
    before = time.process_time()
    for number in range(200):
        preferred(b"%d," % number + b"a/b;q=0.1," * 3000)
    assert time.process_time() - before < 1


class _Text(HTMLParser):
    """The words of a page, and the elements around them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("code", [code for code, reason in REASONS.items() if reason.error])
def test_every_reason_in_every_form(code: str) -> None:
    reason = REASONS[code]
    for status in reason.statuses:
        phrase = PHRASES[status]
        text = refused(code, b"text/plain", status)
        assert text.body.decode() == f"{status} {phrase}: {code}\n{reason.text}\nrequest id {ID}\n"
        problem = refused(code, b"application/json", status)
        assert json.loads(problem.body) == {
            "type": "about:blank",
            "title": phrase,
            "status": status,
            "detail": reason.text,
            "reason": code,
            "request_id": ID,
        }
        page = refused(code, b"text/html", status)
        parser = _Text()
        parser.feed(page.body.decode())
        assert parser.tags == ["html", "meta", "meta", "title", "style", "h1", "p", "footer"]
        for words in (f"{status} {phrase}", reason.text, code, ID):
            assert words in parser.words
        for made, kind in (
            (text, b"text/plain; charset=utf-8"),
            (problem, b"application/problem+json"),
            (page, b"text/html; charset=utf-8"),
        ):
            fields = dict(made.fields)
            assert len(fields) == len(made.fields)
            assert fields[b"content-type"] == kind
            assert fields[b"content-length"] == b"%d" % len(made.body)
            assert fields[b"cache-control"] == b"no-store"
            details = "" if reason.error == code else f'; details="{code}"'
            assert fields[b"proxy-status"] == f"gateway; error={reason.error}{details}".encode()
            assert (fields.get(b"retry-after") == b"1") is (status in (429, 503))
            assert b"x-gateway-reason" not in fields


def test_a_reason_nobody_knows_is_answered_all_the_same() -> None:
    made = refused("of_a_plug_in", status=429)
    fields = dict(made.fields)
    assert made.body.startswith(b"429 Too Many Requests: of_a_plug_in\nToo Many Requests.\n")
    assert fields[b"proxy-status"] == b'gateway; error=http_request_error; details="of_a_plug_in"'
    assert fields[b"retry-after"] == b"1"
    assert b"error=proxy_internal_error" in dict(refused("x", status=599).fields)[b"proxy-status"]
    assert refused("x", status=599).body.startswith(b"599 Refused: x\n")


def test_phrases_are_the_rfc_s_whatever_the_python() -> None:
    assert [PHRASES[status] for status in (413, 414, 416, 422, 508)] == [
        "Content Too Large",
        "URI Too Long",
        "Range Not Satisfiable",
        "Unprocessable Content",
        "Loop Detected",
    ]


def test_the_reason_is_a_field_where_that_is_asked_for() -> None:
    loud = Style(reason_header=True)
    for style, above in ((loud, None), (loud, PLAIN), (PLAIN, loud)):
        assert dict(refused(style=style, above=above).fields)[b"x-gateway-reason"] == b"no_route"
    assert b"x-gateway-reason" not in dict(refused(style=PLAIN, above=PLAIN).fields)


# Error pages.

HOSTILE = "<b>\"'&\\"
EVERYTHING = "{status}|{phrase}|{reason}|{detail}|{request_id}|{other}{}{{status}}"


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("text/html; charset=utf-8", "&lt;b&gt;&quot;&#x27;&amp;\\"),
        ("application/json", "<b>\\\"'&\\\\"),
        ("application/problem+json", "<b>\\\"'&\\\\"),
        ("text/plain; charset=utf-8", HOSTILE),
    ],
)
def test_values_are_escaped_as_the_page_wants_it(content_type: str, shown: str) -> None:
    values = dict.fromkeys(("status", "phrase", "reason", "detail", "request_id"), HOSTILE)
    body = Page(content_type, EVERYTHING).render(values).decode()
    assert body == "|".join([shown] * 5) + "|{other}{}{" + shown + "}"


@given(st.text(max_size=30))
def test_values_never_leave_their_place(text: str) -> None:
    values = dict.fromkeys(("status", "phrase", "reason", "detail", "request_id"), text) | {"status": "404"}
    assert json.loads(PROBLEM.render(values).decode("utf-8", "surrogatepass"))["detail"] == text
    parser = _Text()
    parser.feed(HTML.render(values).decode())
    assert parser.tags == ["html", "meta", "meta", "title", "style", "h1", "p", "footer"]
    assert TEXT.render(values).count(b"404") >= 1


def test_pages_by_status_then_by_class_the_route_s_first() -> None:
    def page(name: str) -> Page:
        return Page("text/plain; charset=utf-8", name + " {status}")

    listener = Style({"404": page("listener 404"), "5xx": page("listener 5xx"), "503": page("listener 503")})
    route = Style({"404": page("route 404"), "4xx": page("route 4xx"), "502": page("route 502")})
    for status, expected in {
        404: b"route 404 404",
        405: b"route 4xx 405",
        502: b"route 502 502",
        503: b"listener 503 503",
        504: b"listener 5xx 504",
    }.items():
        assert refused(status=status, style=listener, above=route).body == expected
    assert refused(status=404, style=listener).body == b"listener 404 404"
    assert refused(status=405, style=listener).body.startswith(b"405 Method Not Allowed: no_route\n")


def test_a_page_is_sent_whatever_the_client_accepts() -> None:
    style = Style({"4xx": Page("text/html; charset=utf-8", "<p>gone")})
    made = refused(accept=b"application/json", style=style)
    assert made.body == b"<p>gone"
    assert dict(made.fields)[b"content-type"] == b"text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\nAccept: text/html", b"text/html"),
        (b"GET / HTTP/1.1\r\nACCEPT:\t text/html \t\r\nhost: a", b"text/html"),
        (b"GET / HTTP/1.1\r\naccept: text/html\r\naccept: application/json", b"text/html"),
        (b"GET / HTTP/1.1\r\naccept-language: de\r\nx-accept: y", b""),
        (b"accept: text/html", b""),
        (b"\r\naccept:", b""),
        (b"\x00\xff\r\naccept:\x80\nx", b"\x80\nx"),
        (b"", b""),
    ],
)
def test_accept_is_found_in_whatever_came(lines: bytes, expected: bytes) -> None:
    assert accept_in(lines) == expected
