"""Steppers for flows; each states its order."""
