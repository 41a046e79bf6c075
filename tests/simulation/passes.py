"""Who was given which token and which key, what was withdrawn, and the laws of what they open."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktrdr.artifacts import sha256_of
from ktrdr.operations.memory.access import MemoryAccess
from ktrdr.operations.model import Operation
from ktrdr.operations.tokens import Scope, TokenRecord, digest_of, read_token, token_text
from ktrdr.protocol.worker_key import HEADER
from simulation.network import Message
from simulation.virtual_time import EPOCH, Process

if TYPE_CHECKING:
    from simulation.laws import Laws

__all__ = ["ADMINISTRATOR", "ENROLMENT", "FORGED", "Passes", "guarded_by"]

ADMINISTRATOR, ENROLMENT = "the administrator's token", "the enrolment token of the settings"
FORGED = "forged"  # in whatever somebody says of what he does not have
_GROUPS = 48  # of workers, which share a token: a ledger has a thousand at most
_ELSEWHERE_S = (
    3.2  # in which a backend may not have heard of a withdrawal: two seconds, and a slow answer of the ledger
)
_FORGOTTEN_S = 45.0  # in which a leader forgets the workers of a withdrawn token: a few rounds of probes, if the ledger stumbles


def guarded_by(seed: int) -> bool:
    """Whether this seed's backends demand tokens; the others are bound to loopback, so to say."""
    return seed % 5 != 3


@dataclass(slots=True)
class _Pass:
    name: str
    scopes: frozenset[Scope]
    withdrawn_at: float | None = None
    withdrawn_by: Process | None = None  # the backend that said so


class Passes:
    """Asked at every request that a backend lets in. ``guarded``: tokens are needed at all."""

    def __init__(self, laws: Laws, *, guarded: bool) -> None:
        self._laws, self.guarded = laws, guarded
        self._known: dict[str, _Pass] = {}  # by text
        self._newest: dict[int, str] = {}  # token of each group of workers
        self._made = 0
        self._keys: dict[str, str] = {}
        self._calls: dict[str, str] = {}  # what a backend shows: which incarnation
        for text, scope in ((ADMINISTRATOR, Scope.ADMIN), (ENROLMENT, Scope.WORKER)):
            self._known[text] = _Pass("", scope.includes())

    async def set_up(self, ledger: MemoryAccess, workers: int) -> None:
        """What the administrator made before anything began: a token for clients, one for readers, and the workers'."""
        if not self.guarded:
            return
        self.client, self.reader = [
            await self._ready_made(ledger, name, scope)
            for name, scope in (("clients", Scope.SUBMIT), ("readers", Scope.READ))
        ]
        for group in range(min(workers, _GROUPS)):
            enrolment = group % 4 == 0
            name = self.next_name(group)
            text = ENROLMENT if enrolment else await self._ready_made(ledger, name, Scope.WORKER)
            self._newest[group] = text

    async def _ready_made(self, ledger: MemoryAccess, name: str, scope: Scope) -> str:
        text = token_text(f"{len(self._known):016x}", bytes.fromhex(sha256_of(name.encode())))
        record = TokenRecord(
            token_id=f"{len(self._known):016x}",
            name=name,
            scopes=(scope,),
            digest=digest_of(text),
            created_at=EPOCH,
            created_by="bootstrap",
        )
        await ledger.add_token(record)
        self.gave(name, text, [scope])
        return text

    # --- who has what -------------------------------------------------------------------------------------------

    @property
    def renewable(self) -> list[int]:
        """Groups of workers whose token can be withdrawn."""
        return [group for group, text in self._newest.items() if text != ENROLMENT]

    def next_name(self, group: int) -> str:
        """A name that no token ever had: late duplicates of what was said of one are about that one alone."""
        self._made += 1
        return f"fleet-{group}.{self._made}"

    def name_of(self, group: int) -> str:
        """What the group's token is called."""
        return self._known[self._newest[group]].name

    def hand_out(self, group: int, text: str) -> None:
        """The group's workers have another token from their next start on."""
        self._newest[group] = text

    @staticmethod
    def group_of(worker_id: str) -> int:
        """Who shares a token with whom."""
        return int(worker_id[1:]) % _GROUPS

    def token_of(self, worker_id: str) -> str | None:
        """What a worker that starts now shows its backend."""
        return self._newest[self.group_of(worker_id)] if self.guarded else None

    def key_of(self, worker_id: str) -> str:
        """A worker's own, for ever."""
        return self._keys.setdefault(worker_id, f"the key of {worker_id}")

    def withdrawn(self, text: str | None) -> bool:
        """Whether it was one once."""
        known = None if text is None else self._known.get(text)
        return known is not None and known.withdrawn_at is not None

    def long_worthless(self, token_id: str, now: float) -> bool:
        """Whether every backend must have heard by now that this token of the ledger was withdrawn."""
        text = next((text for text in self._known if read_token(text) == token_id), None)
        known = None if text is None else self._known[text]
        since = None if known is None else known.withdrawn_at
        return since is not None and now - since > _FORGOTTEN_S

    def worthless(self) -> list[str]:
        """Tokens that were withdrawn."""
        return [text for text in self._known if self.withdrawn(text)]

    # --- what the backends do -----------------------------------------------------------------------------------

    def gave(self, name: str, text: str, scopes: Collection[Scope]) -> None:
        """A token was made."""
        self._known[text] = _Pass(name, frozenset(inner for scope in scopes for inner in scope.includes()))

    def withdrew(self, name: str, now: float, by: Process | None) -> None:
        """A backend acknowledged that a token is worthless from now on; None: it was so already."""
        for known in self._known.values():
            if known.name == name and known.withdrawn_at is None:
                known.withdrawn_at, known.withdrawn_by = now, by

    def admitted(self, message: Message, now: float, by: Process | None, excused_until: float) -> None:
        """A backend lets a request in. Up to a while after ``excused_until`` it could not know better."""
        if not self.guarded:
            return
        law, what = "no token opens more than it was made for", f"{message.method} {message.path}"
        known = self._known.get(_shown(message.headers))
        wanted = _wanted(message.method, message.path)
        if known is None or not wanted & known.scopes:
            told = "without a token" if known is None else f"with one for {sorted(known.scopes)}"
            self._laws.broken(law, f"{what} {told}", message.about)
            return
        if known.withdrawn_at is None:
            return
        at_once = by is not None and by is known.withdrawn_by
        late_s = 0.0 if at_once else _ELSEWHERE_S
        self._laws.demand(
            now <= max(known.withdrawn_at, excused_until) + late_s,
            "what was withdrawn opens nothing",
            f"{what} with '{known.name}', which was withdrawn at {known.withdrawn_at}",
            message.about,
        )

    def spoke(self, worker_id: str, message: Message) -> None:
        """A backend heard somebody as a worker."""
        self._laws.demand(
            message.headers.get(HEADER) == self._keys.get(worker_id, ""),
            "who has a worker's key speaks for it, nobody else",
            f"{message.sender} as {worker_id}",
            message.about,
        )

    def learned(self, instance_id: str, credential: str | None) -> None:
        """A worker was told what it will be called with."""
        if self.guarded:
            whose = self._calls.setdefault(credential or "", instance_id)
            self._laws.demand(
                bool(credential) and whose == instance_id,
                "a worker is called with a credential of its own",
                f"{instance_id} has that of {whose}",
            )

    def changed(self, after: Operation) -> None:
        """Whatever becomes of an operation, nobody made it so who does not have it."""
        self._laws.demand(
            after.error is None or FORGED not in after.error,
            "nobody ends what another one has",
            f"{after.status}: {after.error}",
            after.operation_id,
        )


def _shown(headers: Mapping[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


def _wanted(method: str, path: str) -> frozenset[Scope]:
    """What a request needs, as it was promised, whatever table the backend has."""
    noun, *rest = path.partition("?")[0].removeprefix("/api/v1/").split("/")
    if noun == "artifacts" or (noun == "workers" and rest[-1] in ("register", "report")):
        return frozenset({Scope.WORKER})
    if noun in ("workers", "queue", "tokens") or (noun == "operations" and rest == ["cancel"]):
        return frozenset({Scope.ADMIN})
    return frozenset({Scope.READ if method == "GET" else Scope.SUBMIT})
