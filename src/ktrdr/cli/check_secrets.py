"""The check of ``ktrdr doctor`` that looks at tokens which somebody chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ktrdr.cli.check import Check
from ktrdr.errors import InvalidSetting
from ktrdr.settings import RANDOM_ADVICE, api_token, enrolment_token, token_weakness

__all__ = ["check_secrets"]


def check_secrets(environ: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Whether the tokens of the environment could be guessed; nothing where none is set."""
    try:
        told = {"KTRDR_API_TOKEN": api_token(environ), "KTRDR_ENROLMENT_TOKEN": enrolment_token(environ)}
    except InvalidSetting as error:
        yield Check("tokens", "fail", str(error), "Correct the setting, or make the file readable.")
        return
    found = {name: token_weakness(token) for name, token in told.items() if token is not None}
    weak = [f"{name} {weakness}" for name, weakness in found.items() if weakness is not None]
    if weak:
        advice = f"{RANDOM_ADVICE}; a backend off loopback refuses to start with this one."
        yield Check("tokens", "warn", weak[0], advice)
    elif found:
        yield Check("tokens", "ok", "long enough not to be guessed")
