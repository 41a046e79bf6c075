"""Several backends on one ledger: who leads, what they tell each other, what followers show."""
