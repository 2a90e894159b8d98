"""Metrics: known deploys and incidents, and the numbers that were worked out by hand."""
