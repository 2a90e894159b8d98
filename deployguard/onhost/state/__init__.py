"""What a host keeps of a transaction: its journal, its locks, its lease, its dead-man."""
