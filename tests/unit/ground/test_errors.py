"""The tree of errors: every message names the value, what is accepted and what to do next."""

import pytest

from ktrdr import errors
from ktrdr.errors import (
    FieldError,
    InvalidInput,
    InvalidTransition,
    KtrdrError,
    MissingExtra,
    NotFound,
    Unavailable,
    nearest,
)


def test_every_error_is_exported_in_the_tree_and_has_its_own_slug() -> None:
    found = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KtrdrError)
    ]
    assert {cls.__name__ for cls in found} <= set(errors.__all__)
    slugs = [cls.slug for cls in found]
    assert len(slugs) == len(set(slugs))
    for cls in found:
        assert cls.__name__ in (errors.__doc__ or "")


def test_nearest_hints_or_keeps_silent() -> None:
    assert nearest("rso", ["rsi", "macd"]) == "; did you mean 'rsi'?"
    assert nearest("zzz", ["rsi", "macd"]) == ""


def test_an_input_error_lists_every_fault() -> None:
    error = InvalidInput("Two faults", [FieldError("/a", "is wrong"), FieldError("/b", "too", 3, 5)])
    assert str(error) == "Two faults\n  /a: is wrong\n  line 3, column 5: /b: too"
    assert str(FieldError("", "as a whole")) == "as a whole"
    assert error.message == "Two faults"


def test_not_found_says_what_is_near_and_what_to_do() -> None:
    plain = NotFound("indicator", "rso", valid=["rsi"])
    assert str(plain) == "No indicator named 'rso'; did you mean 'rsi'?"
    assert (plain.kind, plain.name) == ("indicator", "rso")
    assert str(NotFound("file", "x", hint="Check the path")) == "No file named 'x'. Check the path."
    assert str(NotFound("file", "x", hint="Check the path.")) == "No file named 'x'. Check the path."


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtra("Training", "training")
    assert "pip install 'ktrdr[training]'" in str(error)
    assert error.extra == "training"


def test_unavailable_may_say_when_to_try_again() -> None:
    assert Unavailable("later").retry_after_s is None
    assert Unavailable("later", 2.0).retry_after_s == 2.0


def test_an_invalid_transition_tells_the_story() -> None:
    error = InvalidTransition("op_1", "completed", "Accepted", ["submitted", "assigned to w1"])
    assert str(error).endswith("Its story:\n  submitted\n  assigned to w1")
    assert (error.operation_id, error.status, error.event) == ("op_1", "completed", "Accepted")
    with pytest.raises(errors.Conflict):
        raise error
