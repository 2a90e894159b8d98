"""The host's part in a transaction, verb by verb, and what is kept when it has ended."""
