"""Checks as data, and the reading of their results."""
