"""Lines of log: text as ever or JSON, about whom, and never with a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidSetting
from ktrdr.logs import LogFormat, LogSettings, Redaction, about, about_path, configure, subject

SECRET = 'to"ken/\\x1'


class Captured:
    """A logger whose handler is the configured one, writing to a buffer."""

    def __init__(self, **options: Any) -> None:
        self.buffer = io.StringIO()
        self.options = options

    def __enter__(self) -> Captured:
        self.root = logging.getLogger()
        self.before = self.root.handlers[:], self.root.level
        self.root.handlers = []
        configure(LogSettings(**self.options))
        handler = self.root.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(self.buffer)
        return self

    def __exit__(self, *_: object) -> None:
        self.root.handlers, level = self.before[0], self.before[1]
        self.root.setLevel(level)
        logging.getLogger("ktrdr").setLevel(logging.NOTSET)
        logging.captureWarnings(False)

    def lines(self) -> list[str]:
        return self.buffer.getvalue().splitlines()


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("ktrdr.test")


def test_text_is_as_it_was(log: logging.Logger) -> None:
    with Captured() as captured, about(operation_id="op", worker_id="w"):
        log.info("Worker %s listens", "w")
        log.debug("not shown")
    [line] = captured.lines()
    date, clock, level, name, rest = line.split(" ", 4)
    assert (len(date), len(clock)) == (10, 12)
    assert (level, name, rest) == ("INFO", "ktrdr.test:", "Worker w listens")


def test_json_has_one_object_a_line_with_whom_it_is_about(log: logging.Logger) -> None:
    with Captured(format="json", fields={"worker_id": "w1"}) as captured:
        log.info("first\nof two")
        with about(operation_id="op-1"):
            log.warning("inner")
            with about(worker_id="w2"):
                log.error("both")
        log.info("after")
    told = [json.loads(line) for line in captured.lines()]
    assert [(t["level"], t["message"], t.get("operation_id"), t["worker_id"]) for t in told] == [
        ("INFO", "first\nof two", None, "w1"),
        ("WARNING", "inner", "op-1", "w1"),
        ("ERROR", "both", "op-1", "w2"),
        ("INFO", "after", None, "w1"),
    ]
    assert all(t["logger"] == "ktrdr.test" and t["time"].endswith("Z") for t in told)


async def test_tasks_and_threads_are_about_what_started_them() -> None:
    async def work() -> tuple[object, object]:
        return dict(subject()), await asyncio.to_thread(lambda: dict(subject()))

    with about(operation_id="op"):
        task = asyncio.create_task(work())
    assert subject() == {}
    assert await task == ({"operation_id": "op"}, {"operation_id": "op"})


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/v1/operations/op-1/logs", {"operation_id": "op-1"}),
        ("/api/v1/operations", {}),
        ("/api/v1/workers/w.1", {"worker_id": "w.1"}),
        ("/api/v1/workers/register", {}),
        ("/api/v1/workers/registered", {"worker_id": "registered"}),
        ("/health", {}),
    ],
)
def test_a_request_is_about_what_its_path_names(path: str, named: dict[str, str]) -> None:
    with about_path(path):
        assert subject() == named
    assert subject() == {}


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_in_message_arguments_or_traceback(log: logging.Logger, form: LogFormat) -> None:
    with Captured(format=form, secrets=(SECRET, "pass")) as captured:
        log.info("token %s in an argument", SECRET)
        log.info("a mapping: %s", {"authorization": f"Bearer {SECRET}"})
        log.info("http://127.0.0.1/?token=to%22ken%2F%5Cx1 and pass")
        try:
            raise ValueError(f"wrong: {SECRET}")
        except ValueError:
            log.exception("failed")
        log.info("stack", stack_info=True)
    whole = captured.buffer.getvalue()
    for trace in (SECRET, "to%22ken", 'to\\"ken', "pass"):
        assert trace not in whole
    assert "Bearer ***" in whole
    assert "wrong: ***" in whole
    assert whole.count("***") >= 5


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(words, words, words)
@settings(max_examples=50, deadline=None)
def test_what_is_redacted_is_gone_and_bytes_keep_their_places(before: str, secret: str, after: str) -> None:
    redaction = Redaction(secret, None, "")
    content = (before + secret + after).encode()
    masked = redaction.bytes(content)
    assert len(masked) == len(content)
    if "*" not in secret:
        assert secret not in redaction.text(before + secret + after)
        assert secret.encode() not in masked


def test_without_secrets_nothing_changes() -> None:
    redaction = Redaction(None, "")
    assert (redaction.text("a*b"), redaction.bytes(b"a")) == ("a*b", b"a")


def test_handlers_of_others_stay() -> None:
    root, mine = logging.getLogger(), logging.NullHandler()
    root.addHandler(mine)
    before = root.handlers[:]
    try:
        configure(LogSettings())
        assert root.handlers == before
    finally:
        root.removeHandler(mine)
        logging.getLogger("ktrdr").setLevel(logging.NOTSET)


def test_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    environ = {
        "KTRDR_LOG_LEVEL": "debug",
        "KTRDR_LOG_FORMAT": "JSON",
        "KTRDR_API_TOKEN_FILE": str(tmp_path / "token"),
        "KTRDR_ENROLMENT_TOKEN": "enrol",
        "KTRDR_DATABASE_URL": "postgresql+psycopg://me:pw@db/ktrdr",
    }
    read = LogSettings.from_environment(environ)
    assert (read.level, read.format, read.secrets) == ("DEBUG", "json", ("from-file", "enrol", "pw"))
    assert "enrol" not in repr(read)
    assert LogSettings.from_environment({}) == LogSettings()
    assert LogSettings.from_environment({"KTRDR_DATABASE_URL": "http://[x"}).secrets == ()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+psycopg://me:p%40ss@db/ktrdr", ("p%40ss", "p@ss")),
        ("postgresql+psycopg://me@db/ktrdr?sslmode=require&password=p%40ss", ("p@ss",)),
        ("postgresql+psycopg://me@db/ktrdr", ()),
    ],
)
def test_the_database_s_password_is_secret_as_it_is_written_and_as_it_is_meant(
    url: str, words: tuple[str, ...]
) -> None:
    assert LogSettings.from_environment({"KTRDR_DATABASE_URL": url}).secrets == words


def test_the_database_s_password_in_a_file_is_secret(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql+psycopg://me:pw@db/ktrdr\n")
    assert LogSettings.from_environment({"KTRDR_DATABASE_URL_FILE": str(file)}).secrets == ("pw",)
    file.unlink()  # a worker may inherit a name that only the backend reads; who reads it complains
    assert LogSettings.from_environment({"KTRDR_DATABASE_URL_FILE": str(file)}).secrets == ()


@pytest.mark.parametrize(("name", "value"), [("KTRDR_LOG_FORMAT", "xml"), ("KTRDR_LOG_LEVEL", "LOUD")])
def test_a_wrong_word_is_refused_with_the_accepted_ones(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}='{value}' is not accepted. Choose one of: "):
        LogSettings.from_environment({name: value})


def test_warnings_of_python_are_json_too() -> None:
    code = (
        "import warnings; from ktrdr.logs import *; configure(LogSettings(format='json'));"
        "warnings.warn('old', UserWarning)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    [line] = done.stderr.splitlines()
    assert "old" in json.loads(line)["message"]


def test_what_looks_like_a_token_is_removed_although_nobody_named_it() -> None:
    token = f"ktrdr_{'0a' * 8}_{'1b' * 32}"
    redaction = Redaction()
    assert redaction.text(f"sent '{token}'") == "sent 'ktrdr_***'"
    assert redaction.bytes(f"sent '{token}'".encode()) == b"sent '" + b"*" * len(token) + b"'"
    assert redaction.margin == len(token) - 1
    assert redaction.text("ktrdr_backend_total 3") == "ktrdr_backend_total 3"
