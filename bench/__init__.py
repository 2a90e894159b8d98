"""The benchmark: one deploy done by deployguard and by its peers, on the same real hosts."""
