"""Real servers of a test's own, for checks to look at."""
