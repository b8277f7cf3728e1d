"""Results of the reference libraries. Run by the engine environment's python, never imported by a test.

    python reference.py CHAT_MODEL EMBED_MODEL ADAPTER < questions.json > answers.json

Writes a LoRA adapter with large random weights into ADAPTER, so that loading it must change an answer.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoTokenizer

RANK = 8


def write_adapter(model: str, folder: Path) -> None:
    config = AutoConfig.from_pretrained(model)
    head = config.hidden_size // config.num_attention_heads
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for name, width in (("q_proj", config.hidden_size), ("v_proj", head * config.num_key_value_heads)):
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(RANK, config.hidden_size, generator=generator) * 0.2
            tensors[f"{at}.lora_B.weight"] = torch.randn(width, RANK, generator=generator) * 0.2
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": model,
                "r": RANK,
                "lora_alpha": 16,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": ["q_proj", "v_proj"],
            }
        )
    )


def main() -> None:
    chat, embed, adapter = sys.argv[1:]
    questions = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(chat)
    write_adapter(chat, Path(adapter))
    vectors = SentenceTransformer(embed).encode(questions["texts"], normalize_embeddings=True)
    counts = [
        len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False))
        for messages in questions["chats"]
    ]
    plain = [len(tokenizer(text)["input_ids"]) for text in questions["texts"]]
    json.dump({"embeddings": vectors.tolist(), "chat_tokens": counts, "text_tokens": plain}, sys.stdout)


if __name__ == "__main__":
    main()
