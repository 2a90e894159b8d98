"""Watches a plan's checks after the deploy, and tells of what fails once."""
