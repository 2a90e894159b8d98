"""Fakes, fault points and the driver conformance suite, for users too."""
