"""Routing: what a model name stands for, and which endpoint answers a request for it."""
