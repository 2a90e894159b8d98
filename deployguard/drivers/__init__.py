"""Component to procedure: one driver a file, all of them pure."""
