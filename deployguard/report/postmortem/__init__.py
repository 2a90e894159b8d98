"""Post-mortems: drafted from what is on record, finished by people, checked, rendered."""
