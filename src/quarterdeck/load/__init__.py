"""The door that asks: load tests of any OpenAI-compatible server, with locust, and what is made of their results.

locust patches the standard library when it is imported, so only `run`, `worker` and what they build do, in
processes that do nothing else. Everything else here is pure or reads files, and runs (and is tested) without locust.
"""
