"""Steppers for flows: each states its order, and is quoted into the modules of the flows that use it."""
