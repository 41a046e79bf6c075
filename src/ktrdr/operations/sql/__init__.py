"""The ledger in SQL: SQLite and PostgreSQL."""
