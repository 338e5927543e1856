"""What things cost, beside the bare system calls, zarr 2, zarr 3 and the best peers: ``python -m benchmarks``."""
