"""What servers are spoken to in: the protocols of databases, TLS certificates, SCRAM."""
