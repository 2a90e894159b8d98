"""Hosts' transactions as jobs on workers elsewhere, held together by the shared journal."""
