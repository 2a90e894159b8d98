"""How the host program is started and spoken to."""
