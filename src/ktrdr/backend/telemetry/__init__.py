"""The backend in numbers and spans."""
