"""The drill's scenarios and its verdict; whole drills are in tests/cli and tests/scenarios."""
