"""Strategy documents by name, in one or several directories; the first one is the user's and takes new ones."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ktrdr.artifacts import sync_directory
from ktrdr.errors import Conflict, InvalidInput, InvalidStrategy, NotFound
from ktrdr.strategies.document import Strategy
from ktrdr.strategies.parse import parse_strategy
from ktrdr.strategies.schema import STRATEGY_NAME
from ktrdr.strategies.yaml_tree import MAX_BYTES

__all__ = ["StrategyLibrary", "example_root", "read_strategy_file"]

_SUFFIX = ".yaml"


class StrategyLibrary:
    """Documents ``NAME.yaml`` in ``roots``; an earlier root hides the same name in a later one.

    Laws: a name is one file directly inside a root, never a path; links that lead out of their root are not
    followed; a document is written whole or not at all, and only if it is valid and carries the name it is saved
    under. Reading is safe from several threads and processes; of two saves of one name, one wins whole.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        if not roots:
            raise InvalidInput("A strategy library needs at least one directory.")
        self._roots = tuple(Path(root) for root in roots)

    @classmethod
    def with_examples(cls, directory: Path) -> StrategyLibrary:
        """The user's directory first, then the examples of the package."""
        return cls([directory, example_root()])

    def names(self) -> tuple[str, ...]:
        """All names, sorted; documents with faults are listed too."""
        return tuple(sorted({name for root in self._roots for name in _names_in(root)}))

    def path(self, name: str) -> Path:
        """The file that holds ``name``.

        Raises
        ------
        InvalidInput
            If ``name`` is not a possible name (a path, for instance).
        NotFound
            If no root has it; the message gives the nearest name.
        """
        _check_name(name)
        for root in self._roots:
            path = root / f"{name}{_SUFFIX}"
            if path.is_file() and _inside(path, root):
                return path
        names = self.names()
        hint = f"Known strategies: {', '.join(names)}" if names else "Write one: ktrdr strategies new NAME"
        raise NotFound("strategy", name, valid=names, hint=hint)

    def text(self, name: str) -> str:
        """The YAML text as stored; raises as :meth:`path`."""
        return _read(self.path(name))

    def get(self, name: str) -> Strategy:
        """The parsed document; raises as :meth:`path`, and InvalidStrategy if it has faults."""
        return parse_strategy(self.text(name), source=f"{name}{_SUFFIX}")

    def save(self, name: str, text: str, *, overwrite: bool = False) -> Path:
        """Check a document and store it in the first root, atomically.

        Raises
        ------
        InvalidInput
            If ``name`` is not a possible name, or the document calls itself something else.
        InvalidStrategy
            If the document has faults; nothing is stored.
        Conflict
            If the first root has the name already and ``overwrite`` is False.
        """
        _check_name(name)
        strategy = parse_strategy(text, source=f"{name}{_SUFFIX}")
        if strategy.name != name:
            raise InvalidInput(
                f"The document is named '{strategy.name}'; save it under that name or change its key 'name' to '{name}'."
            )
        root = self._roots[0]
        root.mkdir(parents=True, exist_ok=True)
        path = root / f"{name}{_SUFFIX}"
        _write(path, text.encode(), overwrite=overwrite)
        return path


def example_root() -> Path:
    """The directory of the example strategies that ship with the package."""
    return Path(__file__).parent / "examples"


def read_strategy_file(path: str | Path) -> Strategy:
    """Parse the document in a file.

    Raises
    ------
    NotFound
        If there is no such file.
    InvalidStrategy
        If it is not UTF-8, too large, or has faults.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound("strategy file", str(path))
    return parse_strategy(_read(path), source=path.name)


def _check_name(name: str) -> None:
    if not re.fullmatch(STRATEGY_NAME.pattern or "", name):
        raise InvalidInput(f"'{name}' is not a possible strategy name: {STRATEGY_NAME.rule}.")


def _names_in(root: Path) -> Iterator[str]:
    for path in root.glob(f"*{_SUFFIX}") if root.is_dir() else ():
        if re.fullmatch(STRATEGY_NAME.pattern or "", path.stem) and path.is_file() and _inside(path, root):
            yield path.stem


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise InvalidStrategy(f"{path.name} has more than {MAX_BYTES:,} bytes; that is no strategy document.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidStrategy(
            f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        if overwrite:
            Path(temporary).replace(path)
        else:
            _link_new(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_directory(path.parent)


def _link_new(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike rename, refuses to replace: check and creation are one step
    except FileExistsError:
        raise Conflict(
            f"There is a strategy '{path.stem}' already ({path.name}). Choose another name or allow overwriting."
        ) from None
