"""Channels against peers that behave as the providers document."""
