"""Operations as the backend serves them: the ledger behind one face, progress, feeds, logs, results."""
