"""Texts and chats whose token counts and embeddings are compared with the reference libraries."""

TEXTS = ["The harbour master keeps a ledger.", "Ein Schiff läuft ein.", "def f(x): return x + 1", "ship " * 60]


CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count to three. 一二三 🙂"}],
]
