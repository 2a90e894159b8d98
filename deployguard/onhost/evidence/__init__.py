"""What tells why a deploy failed, collected before the restore destroys it."""
