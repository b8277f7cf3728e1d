"""Weights of models from a Hugging Face hub: downloaded by a child process, found again on this machine."""
