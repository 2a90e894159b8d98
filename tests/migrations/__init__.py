"""Migrations: old code never meets a new schema, whatever fails, and nobody is left to guess."""
