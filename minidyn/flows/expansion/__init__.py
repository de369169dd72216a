"""Small steps: flows that a map follows to some order in its learning rate."""
