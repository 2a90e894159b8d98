"""``python -m deployguard``."""

from deployguard.cli.main import main

main()
