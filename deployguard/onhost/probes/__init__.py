"""Checks: one look of each kind, the verdict on a row of looks, and who keeps looking."""
