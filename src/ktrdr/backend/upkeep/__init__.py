"""What the backend forgets and removes with time."""
