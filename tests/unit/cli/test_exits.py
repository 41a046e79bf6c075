"""The exit code table of the code is the one in the docs, and covers the whole error tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ktrdr import errors
from ktrdr.cli.exits import Exit, exit_code

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "exit-codes.md"


def test_docs_hold_the_same_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", PAGE.read_text(), flags=re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(e.value, e.name) for e in Exit]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OperationFailed("x"), Exit.FAILED),
        (errors.Cancelled("x"), Exit.FAILED),
        (errors.NoWorkers("x"), Exit.FAILED),
        (errors.WorkerBusy("x"), Exit.FAILED),
        (errors.CorruptArtifact("x"), Exit.FAILED),
        (errors.InvalidStrategy("x"), Exit.INVALID),
        (errors.InvalidSetting("x"), Exit.INVALID),
        (errors.MissingExtra("x", "report"), Exit.INVALID),
        (errors.Conflict("x"), Exit.INVALID),
        (errors.NotFound("model", "x"), Exit.NOT_FOUND),
        (errors.NotAuthorised("x"), Exit.NOT_AUTHORISED),
        (errors.ServerUnreachable("x"), Exit.UNREACHABLE),
    ],
)
def test_code_of_each_kind_of_error(error: errors.KtrdrError, code: Exit) -> None:
    assert exit_code(error) is code


def test_every_error_has_a_slug_of_its_own() -> None:
    classes = [getattr(errors, name) for name in errors.__all__]
    slugs = [c.slug for c in classes if isinstance(c, type) and issubclass(c, errors.KtrdrError)]
    assert len(slugs) == len(set(slugs))
