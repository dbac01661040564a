"""What one process knows of endpoints that were looked up."""

from __future__ import annotations

import json
from typing import Any

from gateway.config.model import Config
from gateway.config.upstreams import Endpoint
from gateway.findings import Findings, read, written

A = Endpoint.model_validate("10.0.0.1:80")
B = Endpoint.model_validate({"address": "http://10.0.0.2:80/base", "weight": 3, "max_requests": 5, "backup": True})


def config(**upstreams: Any) -> Config:
    return Config.model_validate({"listeners": [{"name": "web", "listen": ":8080"}], "upstreams": upstreams})


def dns(name: str) -> dict[str, Any]:
    return {"discovery": {"kind": "dns", "name": name, "port": 80}}


def test_a_list_survives_a_message() -> None:
    assert read(json.loads(json.dumps(written([A, B])))) == (A, B)


def test_members_are_listed_or_found() -> None:
    one = config(listed={"endpoints": ["10.0.0.9:80"]}, found=dns("a"), never=dns("b"))
    findings = Findings({"found": (A, B), "listed": (A,)})  # what was found under this name once is not asked for
    members = {name: [str(each.address) for each in findings.members(name, up)] for name, up in one.upstreams.items()}
    assert members == {"listed": ["10.0.0.9:80"], "found": ["10.0.0.1:80", "http://10.0.0.2:80/base"], "never": []}


def test_what_is_looked_up_as_before_is_kept() -> None:
    old = config(same=dns("a"), other=dns("b"), gone=dns("c"), listed=dns("d"))
    new = config(same=dns("a") | {"slow_start": "9s"}, other=dns("x"), listed={"endpoints": ["a:1"]}, fresh=dns("a"))
    findings = Findings(dict.fromkeys(old.upstreams, (A,)))
    findings.trouble = dict.fromkeys(old.upstreams, "it is so")
    kept = findings.kept(old, new)
    assert (kept.found, kept.trouble) == ({"same": (A,)}, {"same": "it is so"})


def test_rows_for_people() -> None:
    one = config(listed={"endpoints": ["10.0.0.9:80"]}, found=dns("a"), ill=dns("b"), never=dns("c"))
    findings = Findings({"found": (A, B), "ill": (A,)})
    findings.trouble = {"ill": "it is so"}
    assert findings.rows(one) == [
        {"upstream": "found", "endpoints": 2, "trouble": ""},
        {"upstream": "ill", "endpoints": 1, "trouble": "it is so"},
        {"upstream": "never", "endpoints": 0, "trouble": "nothing was found yet"},
    ]
