"""The controller's journal of transactions."""
