"""The cases, a file for each subject. `CASES` is the one entry point."""

from __future__ import annotations

from dataclasses import replace

from tests.conformance.case import Case
from tests.conformance.cases import (
    bad_responses,
    chunks,
    connections,
    fields,
    framing,
    hops,
    host,
    interim,
    old,
    ours,
    request_line,
    responses,
    smuggling,
    trailers,
    upgrade,
)

GROUPS: dict[str, tuple[Case, ...]] = {
    group: tuple(replace(case, group=group) for case in cases)
    for group, cases in {
        "request line": request_line.CASES,
        "Host": host.CASES,
        "request fields": fields.CASES,
        "request framing": framing.CASES,
        "chunks": chunks.CASES,
        "smuggling": smuggling.CASES,
        "hop by hop": hops.CASES,
        "interim responses": interim.CASES,
        "responses": responses.CASES,
        "broken responses": bad_responses.CASES,
        "trailers": trailers.CASES,
        "HTTP/1.0": old.CASES,
        "connections": connections.CASES,
        "upgrades": upgrade.CASES,
        "the gateway's own": ours.CASES,
    }.items()
}
CASES: tuple[Case, ...] = tuple(case for cases in GROUPS.values() for case in cases)
