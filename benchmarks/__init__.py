"""Speed and memory of training, measured against a straightforward loop: `python -m benchmarks`."""
