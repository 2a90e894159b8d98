"""Processes under PM2: what it knows of them, and what a deploy does to them."""
