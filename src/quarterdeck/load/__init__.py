"""Load tests of any OpenAI-compatible server: `run/` generates load with locust, `analysis/` turns a run's folder into
numbers, `report/` presents them.

Importing locust patches the standard library, so only `run/` imports it, in processes that do nothing else. `analysis/`
and `report/` are pure or read files, and run (and are tested) without locust.
"""
