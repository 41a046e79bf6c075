"""Tokens from the command line, against a real backend."""

from __future__ import annotations

import json
from typing import Any

from support.processes import Parts, ktrdr

ADMIN = "the-bootstrap-token-of-this-test-0123456789"


def test_tokens_are_made_used_listed_and_revoked(alone: Parts) -> None:
    backend = alone.backend(KTRDR_API_TOKEN=ADMIN)

    def cli(*arguments: str, token: str = ADMIN) -> Any:
        return ktrdr(*arguments, env=alone.environment(KTRDR_API_TOKEN=token))

    made = cli("tokens", "create", "reader", "--scope", "read", "--expires", "30d")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert "'reader' (read) ends 20" in made.stderr
    assert token not in made.stderr

    assert cli("operations", "list", token=token).returncode == 0
    forbidden = cli("tokens", "list", token=token)
    assert forbidden.returncode == 4
    assert "The token 'reader' has the scope read; this needs admin." in forbidden.stderr

    listed = json.loads(cli("tokens", "list", "--json").stdout)
    assert [row["name"] for row in listed["tokens"]] == ["reader"]
    assert listed["tokens"][0]["last_used_at"] is not None
    assert cli("tokens", "revoke", "reader").returncode == 0
    gone = cli("operations", "list", token=token)
    assert gone.returncode == 4
    assert "not known here" in gone.stderr
    assert cli("tokens", "revoke", "reader").returncode == 3
    assert cli("tokens", "create", "x", "--scope", "read", "--expires", "soon").returncode == 2
    done = [(e["who"], e["what"], e["outcome"]) for e in json.loads(cli("audit", "--json").stdout)["entries"]]
    assert done == [
        ("bootstrap", "token.revoke", 404),
        ("bootstrap", "token.revoke", 204),
        ("bootstrap", "token.create", 201),
    ]
    assert "token.revoke" in cli("audit", "--since", "1h", "--limit", "1").stdout
    assert cli("audit", "--since", "yesterday").returncode == 2
    assert token not in backend.text()
    assert ADMIN not in backend.text()
