"""Incidents: their states, their clocks, what they have in common, and what they add up to."""
