"""Pages to look at rather than to read: what a transaction was, drawn from what is on record."""
