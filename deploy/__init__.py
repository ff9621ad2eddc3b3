"""Composition, operation, people."""
