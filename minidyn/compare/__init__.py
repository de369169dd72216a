"""Side by side: maps with their flows, over learning rates, at the edge, and how they leave a minimum."""
