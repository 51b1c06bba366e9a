"""Benchmarks that compare soldier_data with handwritten code. Run them with `python -m benchmarks`."""
