"""The controller's journal."""
