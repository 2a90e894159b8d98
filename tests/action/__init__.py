"""The GitHub action: well-formed, safe, and run for real by a local runner."""
