"""Logs of ktrdr's processes: one line each as text or JSON, about which operation and worker, and never a secret.

``about`` names the operation and worker that a stretch of code concerns. Tasks and ``asyncio.to_thread`` inherit it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ktrdr.errors import InvalidSetting
from ktrdr.settings import api_token, database_url, enrolment_token, read_choice

__all__ = ["LogFormat", "LogSettings", "Redaction", "about", "about_path", "configure", "subject"]

LogFormat = Literal["text", "json"]
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS: tuple[LogFormat, ...] = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PATH = re.compile(r"/(operation|worker)s/(?!register(?:/|$))([A-Za-z0-9][A-Za-z0-9._-]{0,127})(?:/|$)")
_TOKEN = re.compile(r"ktrdr_[0-9a-f]{16}_[0-9a-f]{64}")
_TOKEN_BYTES = re.compile(_TOKEN.pattern.encode())
_TOKEN_LENGTH = len("ktrdr_") + 16 + 1 + 64
_SUBJECT: ContextVar[Mapping[str, str]] = ContextVar("ktrdr_log_subject", default={})  # noqa: B039 (never changed)


def subject() -> Mapping[str, str]:
    """What the code that runs now is about: ``operation_id`` and ``worker_id``, as far as known."""
    return _SUBJECT.get()


@contextlib.contextmanager
def about(*, operation_id: str | None = None, worker_id: str | None = None) -> Iterator[None]:
    """Lines logged inside name this operation and worker; None keeps what an outer block says."""
    named = {"operation_id": operation_id, "worker_id": worker_id}
    token = _SUBJECT.set({**_SUBJECT.get(), **{key: value for key, value in named.items() if value}})
    try:
        yield
    finally:
        _SUBJECT.reset(token)


def about_path(path: str) -> contextlib.AbstractContextManager[None]:
    """``about`` the operation or worker that a request's path names, if it names one."""
    found = _PATH.search(path)
    return about(**{f"{found[1]}_id": found[2]}) if found else contextlib.nullcontext()


class Redaction:
    """Removes secrets from text and bytes, also where they stand URL-encoded or escaped; and whatever looks like one of
    the backend's tokens (``ktrdr_ID_SECRET``), although nobody named it.

    Parameters
    ----------
    secrets
        The words that must not be seen; empty ones and None are left out.
    """

    def __init__(self, *secrets: str | None) -> None:
        forms = {form for word in secrets if word for form in _forms(word)}
        self._words = sorted(forms, key=len, reverse=True)  # a secret that contains another goes first
        self._bytes = [word.encode() for word in self._words]

    @property
    def margin(self) -> int:
        """Bytes that must be known before and after a cut, so that no secret escapes by being cut in two."""
        return max(_TOKEN_LENGTH - 1, *(len(word) - 1 for word in self._bytes), 0)

    def text(self, text: str) -> str:
        """``text`` with each secret as ``***``."""
        for word in self._words:
            text = text.replace(word, "***")
        return _TOKEN.sub("ktrdr_***", text)

    def bytes(self, content: bytes) -> bytes:
        """``content`` with each secret as asterisks of its own length, so that positions stay what they are."""
        for word in self._bytes:
            content = content.replace(word, b"*" * len(word))
        return _TOKEN_BYTES.sub(b"*" * _TOKEN_LENGTH, content)


def _forms(word: str) -> Iterator[str]:
    yield word
    yield quote(word, safe="")
    yield json.dumps(word)[1:-1]
    yield repr(word)[1:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How a process logs. ``fields`` are in each of its JSON lines, e.g. its worker's id."""

    level: str = "INFO"
    format: LogFormat = "text"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> LogSettings:
        """``KTRDR_LOG_LEVEL`` and ``KTRDR_LOG_FORMAT``; the secrets are the tokens and the database's password.

        Raises
        ------
        InvalidSetting
            If one of them is not among the accepted words.
        """
        env = os.environ if environ is None else environ
        spoken = read_choice("KTRDR_LOG_FORMAT", "text", _FORMATS, environ=env)
        known = (api_token(env), enrolment_token(env), *_passwords(env))
        return cls(
            level=read_choice("KTRDR_LOG_LEVEL", "INFO", _LEVELS, environ=env),
            format="json" if spoken == "json" else "text",
            secrets=tuple(dict.fromkeys(word for word in known if word)),
        )


def _passwords(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The database's password, as its URL has it and as it is meant; none where the URL is of no use to anybody."""
    try:
        parts = urlsplit(database_url(environ) or "")
        written = parts.password or ""
    except (ValueError, InvalidSetting):
        return ()
    return (written, unquote(written), *(word for name, word in parse_qsl(parts.query) if name == "password"))


class _Text(logging.Formatter):
    """The house's lines, without secrets; a traceback follows its line."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(_TEXT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, operation_id, worker_id, exception."""

    converter = staticmethod(time.gmtime)

    def __init__(self, redact: Callable[[str], str], fields: Mapping[str, str]) -> None:
        super().__init__()
        self._redact = redact
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            **self._fields,
            **subject(),
        }
        if record.exc_info:
            line["exception"] = self._redact(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = self._redact(self.formatStack(record.stack_info))
        return json.dumps(line, ensure_ascii=False)


def configure(settings: LogSettings, *, libraries: str | None = None, force: bool = False) -> None:
    """Log to stderr, unless somebody has configured logging already and ``force`` is not set.

    Parameters
    ----------
    libraries
        The level for everything that is not ktrdr's; None takes the same.
    """
    root = logging.getLogger()
    if not root.handlers or force:
        redact = Redaction(*settings.secrets).text
        handler = logging.StreamHandler()
        handler.setFormatter(_Json(redact, settings.fields) if settings.format == "json" else _Text(redact))
        logging.basicConfig(level=libraries or settings.level, handlers=[handler], force=force)
        logging.captureWarnings(settings.format == "json")  # Python's warnings would be lines of another form
    logging.getLogger("ktrdr").setLevel(settings.level)
