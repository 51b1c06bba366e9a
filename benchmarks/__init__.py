"""Benchmarks of soldier_data beside the fastest handwritten code. Run them with `python -m benchmarks`."""
