"""A model's tokenizer for a test in another environment. Run by the engine environment's python, never imported.

    python real_tokenizer.py MODEL_FOLDER

Reads a JSON object per line: a request of vLLM's `/tokenize`, answered with token ids, or `{"tokens": […]}`, answered
with their text.
"""

import json
import sys

from transformers import AutoTokenizer


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        answer: object
        if "tokens" in asked:
            answer = tokenizer.decode(asked["tokens"], skip_special_tokens=True)
        else:
            text = asked.get("prompt")
            if text is None:
                text = tokenizer.apply_chat_template(
                    asked["messages"],
                    tokenize=False,
                    add_generation_prompt=asked.get("add_generation_prompt", True),
                    continue_final_message=asked.get("continue_final_message", False),
                )
            answer = tokenizer(text, add_special_tokens=False)["input_ids"]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
