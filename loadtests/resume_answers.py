"""Writes resume_answers.json: the token ids of real answers, for tests that cut them after every token.

    .envs/engine/bin/python loadtests/resume_answers.py MODEL_FOLDER

The fifty prompts of resume.py at temperature 0, and twenty of them at temperature 1, by transformers: no engine is
started. Takes two minutes on two cores.
"""

import json
import sys
from pathlib import Path

import torch
from resume import TASKS  # type: ignore[import-not-found]  # beside it: this is a script
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 64
BATCH = 10


def main() -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    answers = []
    for temperature, tasks in ((0, TASKS), (1, TASKS[::5] + TASKS[1::5])):
        for start in range(0, len(tasks), BATCH):
            batch = tasks[start : start + BATCH]
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": task}], add_generation_prompt=True, tokenize=False
                )
                for task in batch
            ]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            sampling = {"do_sample": True, "temperature": 1.0, "top_p": 0.95} if temperature else {"do_sample": False}
            with torch.no_grad():
                outputs = model.generate(**inputs, **sampling, max_new_tokens=TOKENS, top_k=None)
            for task, output in zip(batch, outputs[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                tokens = output[: output.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in output else output
                answers.append({"prompt": task, "temperature": temperature, "tokens": tokens})
    lines = ",\n".join(json.dumps(answer, ensure_ascii=False) for answer in answers)
    (Path(__file__).parent / "resume_answers.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
