"""``python -m ktrdr`` is the ``ktrdr`` command."""

from ktrdr.cli import main

if __name__ == "__main__":
    main()
