"""Writes cosines.json: the cosine similarity of each pair of questions under the packaged embedding model.

    OMP_NUM_THREADS=1 .envs/engine/bin/python loadtests/semantic/embed.py MODEL_FOLDER

all-MiniLM-L6-v2: the normalized mean of the last layer over the text's tokens, as vLLM serves it (pooling MEAN,
normalize). Takes half a minute on one core.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).resolve().parent
BATCH = 64


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    model = AutoModel.from_pretrained(sys.argv[1]).eval()
    pairs = [json.loads(line) for line in (HERE / "pairs.jsonl").read_text().splitlines()]
    texts = sorted({text for pair in pairs for text in (pair["one"], pair["other"])})
    vectors = {}
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            last = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        mean = (last * mask).sum(1) / mask.sum(1)
        for text, vector in zip(batch, torch.nn.functional.normalize(mean, dim=1), strict=True):
            vectors[text] = vector
    cosines = [round(float(vectors[pair["one"]] @ vectors[pair["other"]]), 4) for pair in pairs]
    (HERE / "cosines.json").write_text(json.dumps(cosines) + "\n")
    print(f"{len(texts)} questions, {len(cosines)} pairs")


if __name__ == "__main__":
    main()
