"""Pages to look at: the report of a transaction, and what `serve` shows."""
