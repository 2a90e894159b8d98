"""Drills: the user's own plan is deployed with faults, and the hosts are read afterwards."""
