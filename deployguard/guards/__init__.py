"""Questions asked before anything is touched, one guard a module; a refusal changes nothing."""
