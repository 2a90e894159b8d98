"""The playbooks do what they say: each is validated, and run where this machine can."""
