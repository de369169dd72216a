"""Steppers for flows, each with its order: explicit and implicit methods, schemes for noise, Brownian paths."""
