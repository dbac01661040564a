"""Files of users: which hashes are read, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Absent, StartError
from gateway.middleware.basic_auth import BasicAuth
from gateway.middleware.identity.htpasswd import users_of
from gateway.middleware.identity.passwords import read_hash
from tests.middleware.hashes import argon2id, hashed, user_line
from tests.middleware.rig import Layers

DES = "aaaaaaaaaaaaa"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$apr1$Hk1tB2nK$0wrCLrlpzWTTb7qzkBDYs.", "an MD5 hash (apr1)"),
        ("{SHA}5baa61e4c9b93f3f0682250b6cf8331b", "a SHA-1 hash without salt"),
        ("{SSHA}abc", "a kind that is not known"),
        ("$1$salt$hash", "an MD5 hash (crypt)"),
        ("$5$salt$hash", "a SHA-256 hash (crypt)"),
        ("$6$salt$hash", "a SHA-512 hash (crypt)"),
        ("$2x$05$" + "a" * 53, "made mistakes"),
        ("$2y$05$" + "a" * 52, "cut short"),
        ("$2y$05$" + "!" * 53, "cut short"),
        ("$2y$03$" + "a" * 53, "of cost 3"),
        ("$2y$17$" + "a" * 53, "of cost 17"),
        ("$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "an Argon2i hash"),
        ("$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "too much"),
        ("$argon2id$v=19$m=8,t=99,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "too much"),
        (DES, "a DES hash (crypt), or a password in plain text"),
        ("secret", "in plain text"),
        ("", "in plain text"),
    ],
)
def test_hashes_that_are_not_read(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_hash(text)
    assert said in str(caught.value)
    path = tmp_path / "htpasswd"
    path.write_bytes(user_line(b"ann", b"a") + b"\nbob:" + text.encode() + b"\n")
    with pytest.raises(StartError) as start:
        Layers.of(BasicAuth, htpasswd=str(path))
    assert f'{path}: line 3, user "bob" has {caught.value}; only bcrypt' in str(start.value)
    assert len(text) < 6 or "$" in text[:1] or text not in str(start.value)


@pytest.mark.parametrize("kind", [b"$2a$", b"$2b$", b"$2y$"])
def test_the_names_of_bcrypt(kind: bytes) -> None:
    [hash] = users_of(b"ann:" + kind + hashed(b"secret")[4:]).values()
    assert hash.matches(b"secret") and not hash.matches(b"secreT") and not hash.matches(b"s" * 100)


def test_argon2id() -> None:
    [hash] = users_of(b"ann:" + argon2id(b"s" * 100)).values()
    assert hash.matches(b"s" * 100) and not hash.matches(b"s" * 101) and not hash.matches(b"")
    broken = read_hash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo")
    assert not broken.matches(b"s")


def test_argon2id_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "argon2.exceptions", None)
    with pytest.raises(ValueError, match='line 1, user "ann" has an Argon2id hash, for which the extra "argon2"'):
        users_of(b"ann:" + argon2id(b"s"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "there are no users in it"),
        (b"# nobody\n\n", "there are no users in it"),
        (b"ann\n", "line 1 is not a name and a hash"),
        (b":x\n", "line 1 is not a name and a hash"),
        (b"\xff:x\n", "line 1 is not UTF-8"),
        (b"a\x01b:x\n", "line 1: a name has no control characters"),
        (b"ann :x\n", "and no space at its end"),
        (user_line(b"ann", b"a") + user_line(b"ann", b"b"), 'line 2, user "ann" is there a second time'),
    ],
)
def test_files_that_are_no_good(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        users_of(data)


def test_lines_as_windows_and_nginx_write_them() -> None:
    users = users_of(b"ann:" + hashed(b"a") + b"\r\nbob:" + hashed(b"b") + b":a comment\r\n")
    assert users["ann"].matches(b"a") and users["bob"].matches(b"b")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="there is no such file"):
        Layers.of(BasicAuth, htpasswd=str(tmp_path / "none"))
    with pytest.raises(StartError, match="cannot be read: Is a directory"):
        Layers.of(BasicAuth, htpasswd=str(tmp_path))


@given(st.binary(max_size=80))
def test_a_file_of_any_bytes(data: bytes) -> None:
    try:
        users_of(data)
    except ValueError as error:
        assert str(error)
