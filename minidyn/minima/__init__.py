"""Where an optimizer can stay: manifolds of minima, their charts, flatness, smoothness, linear stability."""
