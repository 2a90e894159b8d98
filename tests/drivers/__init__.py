"""Tests of the drivers: what they say, and what they do to real services."""
