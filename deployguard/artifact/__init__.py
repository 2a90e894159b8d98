"""What is deployed: a directory or a tar, hashed and checked, ready to travel."""
