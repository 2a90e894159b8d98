"""What is collected when a deploy fails, redacted and sealed."""
