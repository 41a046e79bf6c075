"""A worker's settings: required, ranked, refused with a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.operations.model import WorkerType
from ktrdr.workers.settings import WorkerSettings

URL = {"KTRDR_API_URL": "http://127.0.0.1:8000"}


def read(environ: dict[str, str], **flags: object) -> WorkerSettings:
    return WorkerSettings.from_environment(WorkerType.BACKTESTING, environ, **flags)  # type: ignore[arg-type]


def test_the_backend_must_be_named_and_the_message_gives_an_example() -> None:
    with pytest.raises(
        InvalidSetting, match=r"KTRDR_API_URL=http://127\.0\.0\.1:8000 ktrdr worker start backtesting"
    ):
        read({})
    with pytest.raises(InvalidSetting, match="KTRDR_API_URL"):
        read({"KTRDR_API_URL": "  "})


def test_flags_win_over_the_environment() -> None:
    environ = URL | {"WORKER_IP": "10.0.0.1", "WORKER_PORT": "6000", "WORKER_ID": "a"}
    assert read(environ).port == 6000
    settings = read(environ, api_url="http://b:1,http://c:2", host="::1", port=0, worker_id="z")
    assert settings.api_urls == ("http://b:1", "http://c:2")
    assert (settings.host, settings.port, settings.worker_id) == ("::1", 0, "z")


def test_defaults() -> None:
    settings = read(URL)
    assert (settings.host, settings.port, settings.worker_id, settings.endpoint_url) == (None,) * 4
    assert settings.tokens == ()
    assert settings.credential is None
    assert settings.reregister_after_s == 30.0


def test_silence_follows_the_health_interval_unless_set() -> None:
    assert read(URL | {"KTRDR_HEALTH_INTERVAL_S": "0.5"}).reregister_after_s == 1.5
    assert read(URL | {"KTRDR_REREGISTER_S": "7"}).reregister_after_s == 7


def test_secrets_come_from_files_and_do_not_show(tmp_path: Path) -> None:
    (tmp_path / "enrol").write_text("enrol\n")
    settings = read(URL | {"KTRDR_API_TOKEN": "api", "KTRDR_ENROLMENT_TOKEN_FILE": str(tmp_path / "enrol")})
    assert settings.tokens == ("api", "enrol")
    assert settings.credential == "enrol"
    assert "api'" not in repr(settings)
    assert "enrol'" not in repr(settings)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read(URL | {"KTRDR_ENROLMENT_TOKEN_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    "environ",
    [
        {"WORKER_PORT": "http"},
        {"WORKER_PORT": "65536"},
        {"WORKER_PORT": "-1"},
        {"WORKER_ENDPOINT_URL": "192.168.1.20:5003"},
        {"WORKER_ENDPOINT_URL": "http://user:pw@host"},
        {"KTRDR_API_URL": "nonsense"},
        {"KTRDR_LOG_LEVEL": "LOUD"},
        {"KTRDR_REREGISTER_S": "never"},
    ],
)
def test_wrong_values_are_named(environ: dict[str, str]) -> None:
    name, value = next(iter(environ.items()))
    with pytest.raises(InvalidSetting) as caught:
        read(URL | environ)
    assert value in str(caught.value)
    assert name in str(caught.value) or name == "KTRDR_API_URL"


def test_endpoint_url_loses_its_slash() -> None:
    assert read(URL | {"WORKER_ENDPOINT_URL": "http://h:1/"}).endpoint_url == "http://h:1"
