"""The command line: what it costs, what it says, and the code it ends with."""
