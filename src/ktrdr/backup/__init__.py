"""Backups: a ledger and everything it refers to, in one file that any ktrdr of the same or a later schema can restore."""
