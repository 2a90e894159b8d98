"""Deploys to a small cluster by the real kubectl, from the command line, on this machine."""
