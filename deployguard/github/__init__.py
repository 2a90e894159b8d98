"""GitHub's REST interface: a session that is careful with its token, and what is asked over it."""
