"""Whether the modules that a release asks for are there."""
