"""From pending to running and back: dispatch, the pulse of the fleet, registrations and reports."""
