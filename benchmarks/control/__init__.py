"""Measures of the control plane under load: what they share is in ``backend``, ``crowd`` and ``load``; a module per
part of the table has ``rows``."""
