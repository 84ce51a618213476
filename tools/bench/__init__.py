"""Benchmarks: time, memory and largest batch of training steps (`python -m tools.bench`), and time of compilation.

`python -m tools.bench.compile_time` is the second command. Every number comes with a record in JSON of what was
measured, on what, and how far its gradient was from the reference.
"""
