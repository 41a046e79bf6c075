"""Settings come from one mapping, name what is wrong, and never from anywhere else in the code."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.settings import (
    DEFAULT_API_URL,
    CheckpointSettings,
    ControlSettings,
    api_token,
    api_url,
    database_url,
    enrolment_token,
    home,
    read_choice,
    read_number,
)


@pytest.mark.parametrize(("text", "expected"), [("2.5", 2.5), (" 3 ", 3.0), ("", 7.0), ("  ", 7.0)])
def test_a_number_or_its_default(text: str, expected: float) -> None:
    assert read_number("X", 7.0, environ={"X": text}) == expected
    assert read_number("Y", 7.0, environ={"X": text}) == 7.0


@pytest.mark.parametrize("text", ["ten", "nan", "inf", "-inf", "0.5", "-1", "1e99", "1000000001"])
def test_a_wrong_number_is_named_with_its_default(text: str) -> None:
    told = rf"X='{text}' is not a number of at least 1 and at most 1000000000\. Default: 7\."
    with pytest.raises(InvalidSetting, match=told):
        read_number("X", 7.0, minimum=1.0, environ={"X": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [("KTRDR_HEALTH_FAILURES", "1.5"), ("KTRDR_MAX_FAILURES", "2.9")],
)
def test_a_count_has_no_fraction(name: str, text: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"{name}='{text}' is not a whole number\. Default: 3\."):
        ControlSettings.from_environment({name: text})
    assert ControlSettings.from_environment({name: "2.0"}) == ControlSettings.from_environment({name: "2"})


@pytest.mark.parametrize("name", ["KTRDR_CHECKPOINT_EPOCHS", "KTRDR_CHECKPOINT_BARS"])
def test_half_an_epoch_between_checkpoints_is_not_none_at_all(name: str) -> None:
    """It was cut to 0, which switches them off."""
    with pytest.raises(InvalidSetting, match=f"{name}='0.5' is not a whole number"):
        CheckpointSettings.from_environment({name: "0.5"})
    assert CheckpointSettings.from_environment({name: "7"}) != CheckpointSettings()


def test_no_retention_reaches_back_before_the_calendar() -> None:
    longest = ControlSettings.from_environment({"KTRDR_RETENTION_DAYS": "100000"})
    assert datetime.now(UTC) - timedelta(days=longest.retention_days) < datetime(1800, 1, 1, tzinfo=UTC)
    with pytest.raises(
        InvalidSetting, match=r"KTRDR_RETENTION_DAYS='100001' .* at most 100000\. Default: 90\."
    ):
        ControlSettings.from_environment({"KTRDR_RETENTION_DAYS": "100001"})


def test_a_choice_ignores_case_and_lists_what_is_accepted() -> None:
    accepted = ("text", "json")
    assert read_choice("X", "text", accepted, environ={"X": "JSON"}) == "json"
    assert read_choice("X", "text", accepted, environ={}) == "text"
    with pytest.raises(InvalidSetting, match=r"X='xml' is not accepted\. Choose one of: text, json\."):
        read_choice("X", "text", accepted, environ={"X": "xml"})


def test_home_is_absolute() -> None:
    assert home({"KTRDR_HOME": "somewhere"}) == Path("somewhere").absolute()
    assert home({"KTRDR_HOME": "~/k"}) == Path("~/k").expanduser()
    assert home({}).name == "ktrdr"


def test_api_url_loses_its_last_slash() -> None:
    assert api_url({}) == DEFAULT_API_URL
    assert api_url({"KTRDR_API_URL": "http://host:9000/"}) == "http://host:9000"


def test_the_token_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert api_token({"KTRDR_API_TOKEN": "direct"}) == "direct"
    assert api_token({"KTRDR_API_TOKEN": "direct", "KTRDR_API_TOKEN_FILE": str(file)}) == "secret"
    assert api_token({}) is None
    with pytest.raises(InvalidSetting, match=r"KTRDR_API_TOKEN_FILE=.* cannot be read: No such file"):
        api_token({"KTRDR_API_TOKEN_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfesekret", "is not text"),
        (b"sekret\nsekret", "a line break"),
        ("sekr\u00e9t".encode(), "outside ASCII"),
    ],
)
def test_a_file_without_a_usable_token_is_refused_without_a_word_of_it(
    content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"KTRDR_API_TOKEN.*" + told) as caught:
        api_token({"KTRDR_API_TOKEN_FILE": str(tmp_path / "token")})
    assert "sek" not in caught.value.message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("sek\nret", "a line break"),
        ("sek\rret", "a line break"),
        ("sek ret", "a space"),
        ("sek\x00ret", "a control character"),
        ("sekr\u00e9t", "outside ASCII"),
    ],
)
@pytest.mark.parametrize(
    ("name", "read"), [("KTRDR_API_TOKEN", api_token), ("KTRDR_ENROLMENT_TOKEN", enrolment_token)]
)
def test_a_token_that_no_header_can_carry_is_refused_without_a_word_of_it(
    name: str, read: Callable[[dict[str, str]], str | None], token: str, told: str
) -> None:
    with pytest.raises(InvalidSetting, match=f"{name} .*{told}.*openssl rand -hex 32") as caught:
        read({name: token})
    assert "sek" not in caught.value.message


def test_a_database_file_that_is_empty_does_not_mean_the_ledger_in_the_home(tmp_path: Path) -> None:
    (tmp_path / "url").touch()
    with pytest.raises(InvalidSetting, match=r"KTRDR_DATABASE_URL_FILE=.* is empty"):
        database_url({"KTRDR_DATABASE_URL_FILE": str(tmp_path / "url")})


def test_the_database_may_come_from_a_file_because_it_may_hold_a_password(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql+psycopg://me:secret@db/ktrdr\n")
    assert database_url({"KTRDR_DATABASE_URL_FILE": str(file)}) == "postgresql+psycopg://me:secret@db/ktrdr"
    assert database_url({"KTRDR_DATABASE_URL": "sqlite:////l.db"}) == "sqlite:////l.db"
    assert database_url({}) is None


def test_control_settings_read_their_names_and_take_fractions() -> None:
    assert ControlSettings.from_environment({}) == ControlSettings()
    environ = {
        "KTRDR_HEALTH_INTERVAL_S": "0.1",
        "KTRDR_HEALTH_TIMEOUT_S": "0.2",
        "KTRDR_HEALTH_FAILURES": "4",
        "KTRDR_WORKER_REMOVAL_S": "5",
        "KTRDR_LEASE_S": "6",
        "KTRDR_MAX_FAILURES": "7",
        "KTRDR_PROGRESS_TTL_S": "0.8",
        "KTRDR_CANCEL_GRACE_S": "9",
        "KTRDR_HTTP_TIMEOUT_S": "11",
    }
    read = ControlSettings.from_environment(environ)
    seen = (read.health_interval_s, read.health_timeout_s, read.health_failures, read.worker_removal_s)
    assert seen == (0.1, 0.2, 4, 5.0)
    assert (read.lease_s, read.max_failures, read.progress_ttl_s) == (6.0, 7, 0.8)
    assert (read.cancel_grace_s, read.http_timeout_s) == (9.0, 11.0)
    with pytest.raises(InvalidSetting, match="KTRDR_HEALTH_FAILURES='0'"):
        ControlSettings.from_environment({"KTRDR_HEALTH_FAILURES": "0"})
