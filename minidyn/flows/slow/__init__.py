"""Along the minima: the slow motion of a noisy map on a manifold of minima."""
