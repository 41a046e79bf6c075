"""From a request to a recorded operation: what each kind of work means and what makes it impossible."""
