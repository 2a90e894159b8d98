"""Files as data: trees read, compared, built beside what is live, and verified."""
