"""What is timed; `python -m benchmarks` prints the table."""
