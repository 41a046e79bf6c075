"""The command line: commands over HTTP, and the two that start a fleet on this machine."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``ktrdr`` command; exits with a code of ``ktrdr.cli.exits``."""
    try:
        from ktrdr.cli.app import (
            run,
        )  # lazy: keeps `import ktrdr.cli` free of side effects for the docs tools
    except KeyboardInterrupt:  # Ctrl-C before there is anything to interrupt
        raise SystemExit(130) from None
    raise SystemExit(run())
