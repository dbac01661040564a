"""The table of reasons is whole: whatever ends an exchange is in it, and the README has it as it is."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import errors, wire
from gateway.exchange import CLIENT_GONE, OK
from gateway.reasons import OTHER, REASONS, status_of, table

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "gateway").rglob("*.py"))
# RFC 9209, section 2.3.
ERROR_TYPES = re.findall(
    r"\w+",
    """
dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
http_request_error http_request_denied http_response_incomplete http_response_header_section_size
http_response_header_size http_response_body_size http_response_trailer_section_size http_response_trailer_size
http_response_transfer_coding http_response_content_coding http_response_timeout http_upgrade_failed
http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error proxy_loop_detected
""",
)
# A WireError with this status speaks of a response: what ends the exchange then is `BadResponse`.
BAD_GATEWAY = 502


def constants(node: ast.expr | None) -> list[object]:
    """The values that an expression may have, where they are written down."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    if isinstance(node, ast.BoolOp):
        return [value for part in node.values for value in constants(part)]
    return [node.value] if isinstance(node, ast.Constant) else []


def named(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


# Calls that end an exchange, and which of their arguments is the reason.
CALLS = {"WireError": 1, "answer": 2, "cut": 0, "_fail": 1, "refuse": 1, "write_refusal": 1}


def said_in(text: str) -> Iterator[tuple[int, str, list[object]]]:
    """Line, reason and statuses of everything in a file that ends an exchange."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and named(node.func) in CALLS:
            at = CALLS[named(node.func)]
            if len(node.args) <= at:
                continue
            for reason in constants(node.args[at]):
                if isinstance(reason, str):
                    first = constants(node.args[0])
                    yield node.lineno, reason, [status for status in first if isinstance(status, int)]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(named(target) in ("reason", "IDLE", "RESET") for target in targets):
                for reason in constants(node.value):
                    if isinstance(reason, str) and reason:
                        yield node.lineno, reason, []


SAID = [
    (f"{path.relative_to(ROOT)}:{line}", reason, statuses)
    for path in FILES
    if path.relative_to(ROOT / "gateway").parts[0] not in ("master", "config", "observer", "cli.py")
    for line, reason, statuses in said_in(path.read_text())
]


def test_whatever_ends_an_exchange_is_in_the_table() -> None:
    missing = [
        f"{place}: {reason}"
        for place, reason, statuses in SAID
        if BAD_GATEWAY not in statuses and reason not in REASONS
    ]
    assert not missing, "\n".join(missing)
    assert len(SAID) > 40  # the walk itself still sees something


def test_what_is_answered_is_what_the_table_says() -> None:
    wrong = [
        f"{place}: {reason} with {status}"
        for place, reason, statuses in SAID
        for status in statuses
        if status != BAD_GATEWAY and status not in REASONS[reason].statuses
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_what_it_must() -> None:
    text = """
raise WireError(414 if long else 400, "a" if slow else "b")
answer(exchange, send, "c")
self.reason = self.reason or "d"
class E(UpstreamError):
    reason = "e"
exchange.cut("f")
"""
    found = {reason: statuses for _, reason, statuses in said_in(text)}
    assert found == {"a": [414, 400], "b": [414, 400], "c": [], "d": [], "e": [], "f": []}


def test_repeated_fields_have_a_reason_each() -> None:
    """Their codes are put together in wire/fields.py, where no walk finds them."""
    for name in wire.SINGLE:
        assert "repeated_" + name.decode().replace("-", "_") in REASONS


_NO_ROOM = (
    errors.NoEndpoint,
    errors.QueueTimeout,
    errors.DescriptorsExhausted,
    errors.PortsExhausted,
    errors.Busy,
    errors.Declined,
)


@pytest.mark.parametrize(
    "kind", [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.UpstreamError)]
)
def test_every_failure_of_an_endpoint_has_an_answer(kind: type[errors.UpstreamError]) -> None:
    reason = REASONS[kind.reason]
    assert reason.routed
    if kind is errors.UpstreamError:
        assert reason.status == 500
    elif issubclass(kind, _NO_ROOM):
        assert reason.status == 503
    else:
        assert reason.status == (504 if kind.__name__.endswith(("Timeout", "OutOfTime")) else 502)


@pytest.mark.parametrize("code", REASONS)
def test_a_reason_is_well_made(code: str) -> None:
    reason = REASONS[code]
    assert re.fullmatch("[a-z][a-z0-9_]{0,39}", code)
    assert reason.error in ERROR_TYPES or not reason.error
    assert all(400 <= status <= 599 for status in reason.statuses)
    assert re.fullmatch(r"[A-Z].*[^.]\.", reason.text) and "\n" not in reason.text and len(reason.text) < 100
    if reason.error:
        assert reason.status is not None and reason.status == status_of(code)
    if code in ERROR_TYPES:  # our own code means the same as the RFC's
        assert reason.error == code


def test_what_ends_without_a_fault_has_no_reason() -> None:
    assert OK not in REASONS and OTHER not in REASONS and CLIENT_GONE in REASONS
    assert status_of("what nobody knows") == status_of("client_write_timeout") == 500


def test_the_readme_has_the_table() -> None:
    readme = (ROOT / "README.md").read_text()
    assert table() in readme, "python -m gateway.reasons prints it"
