"""What is left of a deploy when something dies in the middle of it: nothing, or all of it."""
