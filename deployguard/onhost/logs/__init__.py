"""What services say: where it stands, and which lines say the same."""
