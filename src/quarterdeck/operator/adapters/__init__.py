"""LoRA adapters: which each replica should have, which it has, and the calls that make the two agree.

vLLM loads an adapter into one replica and forgets it when the process ends. So the operator compares each replica's
own list with the ModelAdapters, loads what is missing, asks it for one token, and only then lets gateways route to it.
`plan` is pure; `client` speaks with an engine; `controller` carries out and reports.
"""
