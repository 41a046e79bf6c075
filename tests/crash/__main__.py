"""``python -m crash --kills 300``: kill -9 while checkpoints and artifacts are written; ends 1 if anything torn is read
or anything good is lost.

Each round forks a writer (``crash.writer``), kills it at a random moment, and then looks at what is on the disk as the
next attempt and the backend would. What a power cut does to a disk that lies about fsync is not shown here.
"""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from random import Random

from crash.writer import home, payload, read, write
from ktrdr.artifacts import FileArtifactStore
from ktrdr.errors import CorruptArtifact, KtrdrError

_MOST_LINES = (
    6  # until the kill, however fast the disk is: a word of begin, then a checkpoint and an artifact in turn
)
_LONGEST_S = 0.02  # on top


class Broken(Exception):
    """A promise that does not hold."""


@dataclass
class Score:
    """What happened in all rounds."""

    kills: int = 0
    in_a_write: int = 0
    checkpoints: int = 0
    artifacts: int = 0
    flips: int = 0
    newest: int = 0
    known: tuple[str, ...] = ()


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="crash")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    score, random = Score(), Random(chosen.seed)
    with tempfile.TemporaryDirectory() as root:
        for _ in range(chosen.kills):
            try:
                play(Path(root), score, random)
            except Broken as broken:
                print(f"BROKEN after {score.kills} kills: {broken}")
                return 1
    print(
        f"{score.kills} kills, {score.in_a_write} in the middle of a write: {score.checkpoints:,} checkpoints and "
        f"{score.artifacts:,} artifacts were acknowledged, 0 torn ones read, 0 lost; "
        f"{score.flips} flipped bits, all refused"
    )
    if not score.in_a_write or score.checkpoints < score.kills:
        print("too few kills met a write, so too little was proved")
        return 3
    return 0


def play(root: Path, score: Score, random: Random) -> None:
    """One round: write, kill, look."""
    store, folder = home(root)
    (folder.root / "checkpoints.json").unlink(missing_ok=True)  # each attempt has a run folder of its own
    told = _killed(root, score.known, random.randrange(_MOST_LINES), random.uniform(0.0, _LONGEST_S))
    score.kills += 1
    begins = [int(line[5:]) for line in told if line.startswith("from ")]
    done = [int(line[11:]) for line in told if line.startswith("checkpoint ")]
    if begins != [score.newest]:
        raise Broken(f"the attempt went on from {begins}, the newest was {score.newest}")
    score.checkpoints += len(done)
    saved = folder.checkpoints().saved
    known = tuple(dict.fromkeys((*saved, *score.known)))
    numbers = [_number(store, digest) for digest in known] or [0]
    if numbers[0] < (promised := max(done, default=score.newest)):
        raise Broken(f"checkpoint {promised} was acknowledged, the newest that can be read is {numbers[0]}")
    for digest in known[2:]:
        store.delete(digest)
    score.known, score.newest = known[:2], numbers[0]
    _look_at_files(store, {line[9:] for line in told if line.startswith("artifact ")}, score)
    if score.known:
        _flip(root, score, random)


def _killed(root: Path, known: tuple[str, ...], lines: int, after_s: float) -> list[str]:
    """Run a writer and kill it so long after it has told more than so many lines; all that it told."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            write(*home(root), known, writing)
        finally:
            os._exit(9)
    os.close(writing)
    told = b""
    with open(reading, "rb", buffering=0) as pipe:
        while told.count(b"\n") <= lines and (more := _piece(pipe)):
            told += more
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        told += pipe.readall()
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise Broken("the writer ended by itself; its error is above")
    return told.decode().splitlines()


def _piece(pipe: FileIO) -> bytes:
    """What is told next; nothing at the writer's end, or within a minute."""
    return pipe.read(4096) or b"" if select.select([pipe], [], [], 60.0)[0] else b""


def _number(store: FileArtifactStore, digest: str) -> int:
    """Read a checkpoint as the next attempt does, and see that it is the one it says it is."""
    try:
        checkpoint = read(store, digest)
    except KtrdrError as error:
        raise Broken(f"a checkpoint that was told cannot be read: {error}") from None
    number = int(checkpoint.snapshot.values["number"])
    if (
        number != checkpoint.done
        or checkpoint.snapshot.arrays["payload"].tobytes() != payload(number, 1).tobytes()
    ):
        raise Broken(f"checkpoint {digest[:12]} holds other data than those of step {checkpoint.done}")
    return number


def _look_at_files(store: FileArtifactStore, artifacts: set[str], score: Score) -> None:
    """Every name is the digest of its bytes; what was acknowledged is there; half-written files have no such name."""
    score.artifacts += len(artifacts)
    present = set(store.digests())
    if torn := [digest for digest in present if not store.intact(digest)]:
        raise Broken(f"a torn file has the name of a whole one: {torn[0]}")
    if lost := artifacts - present:
        raise Broken(f"an acknowledged artifact is gone: {next(iter(lost))}")
    score.in_a_write += bool(store.clear_torn(older_than_s=-1.0))
    for digest in present - set(score.known):
        store.delete(digest)


def _flip(root: Path, score: Score, random: Random) -> None:
    """A single flipped bit of the newest checkpoint is refused, and the older one serves."""
    store, _ = home(root)
    newest, *older = score.known
    file = store.location(newest)
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    file.write_bytes(bytes(damaged))
    try:
        read(store, newest)
    except CorruptArtifact:
        score.flips += 1
    else:
        raise Broken("a checkpoint with a flipped bit was read")
    for digest in older:
        _number(store, digest)
    file.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
