"""The fault suite: real processes, real faults, and a figure for each promise.

`scripts/faults` runs it, for pytest does not: what it measures needs the machine for itself.
"""
