"""What the machine allows: scripted cgroups, real rlimits."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.config.model import Config
from gateway.master import limits
from gateway.middleware import KINDS

# The parallel test runner has a thread, which Python 3.12 warns about; a child here waits for no lock of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

MANY = 64  # CPUs in the mask, so that quotas decide


def cpus(root: Path, membership: str, files: Mapping[str, str], allowed: int | None = MANY) -> int:
    (root / "self").write_text(membership)
    for name, content in files.items():
        file = root / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return limits.cpus(allowed=allowed, cgroups=root / "cgroup", self_cgroup=root / "self")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, MANY),
        ("0::/\n", {}, MANY),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "800000 100000\n", "cpu.max": "max 1\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "900000 100000\n", "a/b/cpu.max": "200000 50000\n"}, 4),
        ("0::/a/b\n", {"a/bb/cpu.max": "100000 100000\n"}, MANY),
        ("0::/../x\n", {"cpu.max": "500000 100000\n"}, 5),
        ("0::/with:colon\n", {"with:colon/cpu.max": "500000 100000\n"}, 5),
        ("0::/\n", {"cpu.max": "rubbish\n"}, MANY),
        ("0::/\n", {"cpu.max": "100000 0\n"}, MANY),
        ("rubbish\n", {"cpu.max": "100000 100000\n"}, MANY),
    ],
    ids=str,
)
def test_the_tightest_quota_of_version_2_counts(
    tmp_path: Path, membership: str, files: Mapping[str, str], expected: int
) -> None:
    assert cpus(tmp_path, membership, files) == expected


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("250000", 3), ("-1", MANY)])
def test_the_quota_of_version_1_counts(tmp_path: Path, mount: str, quota: str, expected: int) -> None:
    membership = "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n1:name=systemd:/\n"
    files = {f"{mount}/cpu.cfs_quota_us": f"{quota}\n", f"{mount}/cpu.cfs_period_us": "100000\n"}
    assert cpus(tmp_path, membership, files) == expected  # at the mount: inside a container there is no docker/abc


def test_both_versions_at_once(tmp_path: Path) -> None:
    files = {
        "unified/a/cpu.max": "400000 100000\n",
        "cpu/a/cpu.cfs_quota_us": "300000\n",
        "cpu/a/cpu.cfs_period_us": "100000\n",
    }
    assert cpus(tmp_path, "1:cpu:/a\n0::/a\n", files) == 3


def test_affinity_is_the_ceiling(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert cpus(tmp_path, "0::/\n", {"cpu.max": "99900000 100000\n"}, None) == allowed
    assert limits.cpus(cgroups=tmp_path / "none", self_cgroup=tmp_path / "none") == allowed
    assert 1 <= limits.cpus() <= allowed


def in_child(action: Callable[[], bool]) -> bool:
    """Limits and affinity of a child, so that those of the test run stay."""
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = action()
        finally:
            os._exit(0 if right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_descriptors_are_raised_to_the_hard_limit() -> None:
    def raised() -> bool:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
        return limits.raise_nofile() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limits.nofile()

    assert in_child(raised)


def test_each_slot_is_pinned_to_a_cpu_of_the_mask() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for slot in range(len(allowed) + 1):
        expected = allowed[slot % len(allowed)]

        def pinned(slot: int = slot, cpu: int = expected) -> bool:
            return limits.pin(slot) == cpu and os.sched_getaffinity(0) == {cpu}

        assert in_child(pinned)


def test_somaxconn_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert limits.somaxconn() > 0
    (tmp_path / "somaxconn").write_text("128\n")
    assert limits.somaxconn(tmp_path / "somaxconn") == 128
    assert limits.somaxconn(tmp_path / "none") == 4096


def warnings(**changed: int) -> list[str]:
    numbers = {
        "nofile": 10_000,
        "workers": 4,
        "connections_per_worker": 4_000,
        "upstream_connections_per_worker": 4_000,
        "somaxconn": 4_096,
        **changed,
    }
    return limits.warnings(backlogs={"web": 4_096, "tls": 511}, **numbers)


def test_a_configuration_that_fits_gets_no_warning() -> None:
    assert warnings() == []


def test_too_few_descriptors_for_a_worker() -> None:
    (sentence,) = warnings(nofile=8_000)
    assert sentence == (
        "a worker may open 8000 descriptors (RLIMIT_NOFILE), but 4000 connections and 4000 to upstreams need 8066:"
        " raise LimitNOFILE or lower max_connections"
    )


def test_too_few_descriptors_for_the_master() -> None:
    (sentence,) = warnings(nofile=256, workers=40, connections_per_worker=60, upstream_connections_per_worker=60)
    assert sentence.startswith("the master may open 256 descriptors")


def test_descriptors_of_each_kind_of_listener() -> None:
    """A tunnel has two, one of them to its destination; of an association there are up to four, a session is one."""
    common = {"listen": "127.0.0.1:0", "max_connections": 10}
    config = Config.model_validate(
        {
            "listeners": [
                {"name": "tcp", "kind": "tcp", "upstream": "app", **common},
                {"name": "socks", "kind": "socks5", **common},
                {"name": "datagrams", "kind": "socks5", "udp_associate": True, **common},
                {"name": "udp", "kind": "udp", "upstream": "app", "listen": "127.0.0.1:0", "max_sessions": 10},
            ],
            "upstreams": {"app": {"endpoints": ["127.0.0.1:9"]}},
        },
        context=KINDS,
    )
    assert [one.most_descriptors for one in config.listeners] == [10, 10, 30, 10]
    assert config.most_tunnels == 30


def test_a_backlog_that_the_kernel_cuts() -> None:
    assert warnings(somaxconn=1_024) == ["listener web: the backlog of 4096 is cut to 1024 by net.core.somaxconn"]
