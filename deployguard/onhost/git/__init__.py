"""Checkouts: what is in one, and the tree that a commit makes of it. Never moved by git itself."""
