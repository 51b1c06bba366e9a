"""What soldier_data costs, beside the least that the same work can cost. Started by `python -m benchmarks`."""
