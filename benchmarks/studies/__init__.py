"""Longer studies that print figures of the docs; by name only."""
