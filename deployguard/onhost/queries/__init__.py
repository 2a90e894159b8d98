"""What a host is asked outside a transaction. Nothing here changes anything."""
