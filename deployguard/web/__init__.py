"""`deployguard serve`: the store of this machine as pages on localhost."""
