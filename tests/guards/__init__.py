"""Each guard refuses with exit code 5 and touches nothing, and lets pass what it should."""
