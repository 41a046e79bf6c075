"""Artifacts by digest over HTTP: fetched once, verified always, from whichever backend answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.errors import (
    CorruptArtifact,
    InvalidSetting,
    KtrdrError,
    NotAuthorised,
    NotFound,
    ServerUnreachable,
)
from ktrdr.protocol.artifact_client import CachedArtifacts, split_urls
from ktrdr.testing.fake_backend import FakeBackend

CONTENT = b"bars" * 1_000_000
DIGEST = sha256_of(CONTENT)


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path / "cache")


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A port that is bound and not listened on: connecting is refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def client(
    cache: FileArtifactStore, *urls: str, token: str | None = None
) -> tuple[CachedArtifacts, list[float]]:
    waits: list[float] = []
    return CachedArtifacts(cache, ",".join(urls), token, attempts=3, sleep=waits.append), waits


def test_a_missing_artifact_is_fetched_once_and_then_local(
    backend: FakeBackend, cache: FileArtifactStore
) -> None:
    backend.artifacts[DIGEST] = CONTENT
    artifacts, waits = client(cache, backend.url)
    assert artifacts.read(DIGEST) == CONTENT
    assert artifacts.path(DIGEST) == cache.location(DIGEST)
    assert backend.requests == [("GET", f"/api/v1/artifacts/{DIGEST}")]
    assert waits == []


def test_put_stays_local_and_upload_asks_before_it_sends(
    backend: FakeBackend, cache: FileArtifactStore
) -> None:
    artifacts, _ = client(cache, backend.url)
    assert artifacts.put(CONTENT) == DIGEST
    assert backend.requests == []
    artifacts.upload(DIGEST)
    artifacts.upload(DIGEST)
    assert backend.artifacts == {DIGEST: CONTENT}
    assert [method for method, _ in backend.requests] == ["HEAD", "PUT", "HEAD"]


class Damaged(FakeBackend):
    """A backend whose copy does not match its digest."""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any] | bytes]:
        return (500, {"detail": "damaged"}) if method == "HEAD" else super().answer(method, path, body)


def test_upload_repairs_a_damaged_copy(cache: FileArtifactStore) -> None:
    with Damaged() as backend:
        artifacts, waits = client(cache, backend.url)
        artifacts.upload(artifacts.put(CONTENT))
        assert (backend.artifacts, waits) == ({DIGEST: CONTENT}, [])


def test_has_looks_here_and_there(backend: FakeBackend, cache: FileArtifactStore) -> None:
    artifacts, _ = client(cache, backend.url)
    assert not artifacts.has(DIGEST)
    backend.artifacts[DIGEST] = CONTENT
    assert artifacts.has(DIGEST)
    assert artifacts.has(artifacts.put(b"mine"))


def test_what_no_backend_has_is_not_found_without_waiting(
    backend: FakeBackend, cache: FileArtifactStore
) -> None:
    artifacts, waits = client(cache, backend.url)
    with pytest.raises(NotFound, match=DIGEST):
        artifacts.path(DIGEST)
    assert waits == []


def test_damaged_cache_file_is_fetched_again(backend: FakeBackend, cache: FileArtifactStore) -> None:
    backend.artifacts[DIGEST] = CONTENT
    cache.put(CONTENT)
    cache.location(DIGEST).write_bytes(b"torn")
    assert client(cache, backend.url)[0].read(DIGEST) == CONTENT


def test_other_bytes_are_never_used(backend: FakeBackend, cache: FileArtifactStore) -> None:
    backend.artifacts[DIGEST] = CONTENT[:-1] + b"X"
    artifacts, waits = client(cache, backend.url)
    with pytest.raises(CorruptArtifact):
        artifacts.path(DIGEST)
    assert len(waits) == 2
    assert not cache.has(DIGEST)


def test_the_second_backend_helps_when_the_first_is_down(
    backend: FakeBackend, cache: FileArtifactStore, dead_url: str
) -> None:
    backend.artifacts[DIGEST] = CONTENT
    artifacts, waits = client(cache, dead_url, backend.url)
    assert artifacts.read(DIGEST) == CONTENT
    assert waits == []


def test_absence_at_one_backend_is_no_answer_while_another_is_down(
    backend: FakeBackend, cache: FileArtifactStore, dead_url: str
) -> None:
    artifacts, waits = client(cache, dead_url, backend.url)
    with pytest.raises(ServerUnreachable, match=dead_url):
        artifacts.path(DIGEST)
    assert len(waits) == 2


def test_nobody_answers(cache: FileArtifactStore, dead_url: str) -> None:
    artifacts, waits = client(cache, dead_url)
    with pytest.raises(ServerUnreachable, match="KTRDR_API_URL"):
        artifacts.read(DIGEST)
    assert waits == sorted(waits)
    assert len(waits) == 2


def test_a_server_error_is_tried_again(backend: FakeBackend, cache: FileArtifactStore) -> None:
    backend.refuse["artifacts"] = 503
    artifacts, waits = client(cache, backend.url)
    with pytest.raises(ServerUnreachable, match="503"):
        artifacts.path(DIGEST)
    assert len(backend.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize(("status", "error"), [(403, NotAuthorised), (413, KtrdrError)])
def test_a_refusal_is_final(
    backend: FakeBackend, cache: FileArtifactStore, status: int, error: type[KtrdrError]
) -> None:
    backend.refuse["artifacts"] = status
    artifacts, _ = client(cache, backend.url)
    with pytest.raises(error, match=str(status)):
        artifacts.upload(artifacts.put(CONTENT))
    assert len(backend.requests) == 1


def test_the_token_is_shown(cache: FileArtifactStore) -> None:
    with FakeBackend(token="secret") as backend:
        backend.artifacts[DIGEST] = CONTENT
        with pytest.raises(NotAuthorised, match="KTRDR_ENROLMENT_TOKEN"):
            client(cache, backend.url)[0].read(DIGEST)
        assert client(cache, backend.url, token="secret")[0].read(DIGEST) == CONTENT


def test_upload_of_what_the_cache_lacks(backend: FakeBackend, cache: FileArtifactStore) -> None:
    with pytest.raises(NotFound):
        client(cache, backend.url)[0].upload(DIGEST)
    assert backend.requests == []


def test_a_server_without_artifacts_is_no_backend(backend: FakeBackend, cache: FileArtifactStore) -> None:
    backend.refuse["artifacts"] = 404
    artifacts, _ = client(cache, backend.url)
    with pytest.raises(ServerUnreachable, match="keeps no artifacts"):
        artifacts.upload(artifacts.put(CONTENT))


def test_urls_of_a_setting() -> None:
    assert split_urls(" http://a:1/ , https://b ") == ("http://a:1", "https://b")
    for wrong in ("", " , ", "ftp://a", "127.0.0.1:8000", "http://user@host"):
        with pytest.raises(InvalidSetting, match="Example: http://127"):
            split_urls(wrong)


def test_https_is_spoken_to_https_urls(cache: FileArtifactStore, backend: FakeBackend) -> None:
    artifacts, _ = client(cache, backend.url.replace("http:", "https:"))
    with pytest.raises(ServerUnreachable, match=r"(?i)ssl"):
        artifacts.read(DIGEST)
