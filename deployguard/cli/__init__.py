"""One command a module; the only place that maps errors to exit codes."""
