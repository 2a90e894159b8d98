"""What a host is asked, for a deploy or outside one. Nothing here changes anything."""
