"""Tells people what happened: learns a deploy's outcome, and cannot change it."""
