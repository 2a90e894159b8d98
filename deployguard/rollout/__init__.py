"""The deploy itself: one host's transaction, the fleet, the decision and the rescue."""
