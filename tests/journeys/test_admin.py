"""What the gateway says of itself, to machines and to people."""

from __future__ import annotations

import json
import os
import signal
import threading

from tests.support.gateway_process import Start
from tests.support.http import Cut, get
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually

COUNTED = {
    "gateway_requests": "counter",
    "gateway_request_bytes": "counter",
    "gateway_response_bytes": "counter",
    "gateway_request_duration_seconds": "histogram",
    "gateway_first_byte_seconds": "histogram",
    "gateway_connections_accepted": "counter",
    "gateway_connections_open": "gauge",
    "gateway_upstream_connections_opened": "counter",
    "gateway_upstream_connections_reused": "counter",
    "gateway_upstream_connections_open": "gauge",
    "gateway_upstream_retries": "counter",
    "gateway_worker_requests": "gauge",
    "gateway_config_generation": "gauge",
    "gateway_config_last_reload_success": "gauge",
    "gateway_config_last_reload_time_seconds": "gauge",
    "gateway_worker_restarts": "counter",
}


def test_live_and_ready(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    assert get(one.admin, "/live").status == 200
    ready = get(one.admin, "/ready")
    assert (ready.status, ready.body) == (200, b"2 of 2 workers of generation 1 are ready\n")
    assert get(one.admin, "/nothing").status == 404
    for _ in range(3):  # each death makes the pause before the successor longer
        os.kill(one.pids()[0], signal.SIGKILL)
        eventually(lambda: get(one.admin, "/ready").status == 503, "not ready while a worker is missing")
        assert get(one.admin, "/live").status == 200
        eventually(lambda: get(one.admin, "/ready").status == 200)


def test_a_reload_cuts_nobody_who_asks(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=1))
    admin, over, failed = one.admin, threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            try:
                get(admin, "/live")
            except (Cut, OSError) as error:
                failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for _ in range(5):
        assert one.ask(do="reload")["ok"]
        one.settled(1)
    over.set()
    for thread in asking:
        thread.join()
    assert not failed


def test_status_is_the_same_from_both_sides(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    told = json.loads(get(one.admin, "/status").body)
    assert (told["generation"], told["workers_wanted"], told["workers_ready"], told["ready"]) == (1, 2, 2, True)
    roles = {process["pid"]: process["role"] for process in told["processes"]}
    assert roles == {one.pid: "master", one.observer: "observer"} | dict.fromkeys(one.pids(), "worker")


def test_what_was_asked_is_counted(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    with Load(one.address(), gets=2, posts=2, fresh=1) as load:
        load.goes_on(200)
    load.clean()
    asked = load.report.requests
    eventually(lambda: Metrics(one.admin)("gateway_connections_open") == 0, "nobody is connected any more")
    now = Metrics(one.admin)
    assert now.kinds.items() >= COUNTED.items()
    assert now("gateway_requests_total", listener="web", route="app", upstream="app", code="2xx") == asked
    assert now("gateway_requests_total") == asked
    assert now("gateway_request_duration_seconds_count") == asked
    assert now("gateway_request_duration_seconds_bucket", le="+Inf") == asked
    assert now("gateway_connections_accepted_total") == load.report.connections
    opened = now("gateway_upstream_connections_opened_total")
    assert opened + now("gateway_upstream_connections_reused_total") == asked
    assert 0 < opened < asked / 2
    assert now("gateway_worker_requests") == asked
    assert sum(worker.requests for worker in one.workers()) == asked


def test_counters_never_fall(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    with Load(one.address()) as load:
        looks = [Metrics(one.admin)]

        def look() -> None:
            load.goes_on()
            looks.append(Metrics(one.admin))
            looks[-1].since(looks[-2])

        look()
        os.kill(one.pids()[1], signal.SIGKILL)
        look()
        one.settled(2)
        look()
        more = '[[routes]]\nname = "more"\npath = "/more"\nupstream = "app"\n'
        for config in (settings.but(more=more), settings.but(workers=3), settings):
            one.write(config)
            assert one.ask(do="reload")["ok"]
            look()
        one.write("nonsense")
        assert not one.ask(do="reload")["ok"]
        look()
    assert looks[-1]("gateway_worker_restarts_total", reason="crash") == 1
    assert looks[-1]("gateway_reloads_total") == 4
    assert looks[-1]("gateway_reloads_failed_total") == 1
    assert looks[-1]("gateway_config_last_reload_success") == 0
    assert looks[-2]("gateway_config_last_reload_success") == 1


def test_an_observer_that_is_killed_comes_back_and_traffic_never_notices(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    admin, workers = one.admin, one.pids()
    with Load(one.address()) as load:
        for _ in range(3):
            earlier, before = one.observer, Metrics(admin)
            os.kill(earlier, signal.SIGKILL)
            load.goes_on(50)
            eventually(lambda gone=earlier: one.status()["observer"] and one.observer != gone)  # type: ignore[misc]
            assert get(admin, "/live").status == 200  # asked too early it waits in the queue
            Metrics(admin).since(before)
    load.clean()
    assert one.pids() == workers


def test_one_that_stands_still_is_replaced_too(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process={"heartbeat_timeout": "2s"}))
    earlier = one.observer
    os.kill(earlier, signal.SIGSTOP)
    with Load(one.address()) as load:
        assert get(one.admin, "/live").status == 200
    load.clean()
    assert one.observer != earlier


def test_without_an_admin_listener_there_is_no_observer(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(admin=None))
    assert one.status()["observer"] is None
    one.write(settings)
    assert one.reload().returncode == 0
    admin = one.admin
    assert get(admin, "/ready").status == 200
    one.write(settings.but(admin=None))
    assert one.reload().returncode == 0
    eventually(lambda: one.status()["observer"] is None)


def test_status_for_people_and_for_programs(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    told = json.loads(one.cli("status", "--json").stdout)
    assert [worker["slot"] for worker in told["workers"]] == [0, 1]
    for worker in told["workers"]:
        assert worker.keys() >= {"pid", "generation", "state", "age_seconds", "cpu_seconds", "private_bytes"}
        assert worker.keys() >= {"connections", "requests"}
        assert worker["private_bytes"] > 0
    table = one.cli("status", terminal=True).stdout
    for pid in (one.pid, one.observer, *one.pids()):
        assert str(pid) in table
    for text in ("master", "observer", "worker 0", "worker 1", one.address(), one.admin, "generation 1", "ready"):
        assert text in table
    one.stop()
    late = one.cli("status")
    assert late.returncode == 1
    assert late.stderr == f"no gateway is running: there is no control socket {one.control}\n"
