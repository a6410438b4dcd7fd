"""Checks that a device computes correctly: every op against its twin, a replayed step against an eager one.

`verdict.py` runs the checks in separate processes, which run `worker.py`. `ops.py` and `steps.py` hold the comparisons.
`choice.py` is how a run acts on the verdict.
"""
