"""What to do in an incident: the assessment, containment, the options, and the one chosen."""
