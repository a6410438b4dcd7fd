"""Whether a device computes as it should: every op against its twin, a replayed step against an eager one.

`verdict.py` asks, in processes of their own, which run `worker.py`; `ops.py` and `steps.py` hold what is compared;
`choice.py` is what a run makes of the answer.
"""
