"""The ledger in memory: for tests and simulations."""
