"""Workers: processes that register with a backend and run one operation at a time, each in a child process.

The worker's own process serves HTTP and never computes; it never loads torch, polars or numba.
"""
