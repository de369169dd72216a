"""At and beyond the edge of stability: the period-two orbit, and flows of its mid-point."""
