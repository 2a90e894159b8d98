"""Stacks of containers: what the engine knows of them, and what a deploy does to them."""
