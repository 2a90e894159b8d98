"""Incidents that happened, replayed end to end on real parts; docs/incidents has a page of each."""
