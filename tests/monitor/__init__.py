"""What is told of what a watch sees, by a clock that a script moves."""
