"""What was live, kept off the hosts: in a bucket or a directory, sealed where a key is given."""
