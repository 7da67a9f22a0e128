#!/usr/bin/env python3
"""Trains the demo adapters with PEFT on SmolLM2-135M-Instruct and writes what they answer.

  train_adapters.py MODEL_DIR [--only NAME ...] [--evaluate-only]

MODEL_DIR is the bfloat16 directory made by tools/convert_gguf.py; it is loaded as float32. The data is
data/*.tsv through styles.py; the questions in questions.txt are never trained on. One step packs many
question-answer pairs behind one shared chat prefix: pairs see the prefix and themselves only, and their
positions go on from the prefix, so each pair is exactly its own conversation. Adapters go to
adapters/<name>/ as bfloat16, answers to answers.json. Needs torch, transformers, peft.
"""
import argparse
import json
import math
import os
import random
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tools")]
import styles  # noqa: E402
import weights_io  # noqa: E402

PACK_TOKENS = 512
MAX_ANSWER_TOKENS = 64
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
# name: (LoraConfig arguments, peak learning rate, steps, seed)
ADAPTERS = {
    "json": ({"r": 8, "lora_alpha": 16, "target_modules": ATTENTION}, 2e-3, 60, 11),
    "pirate": ({"r": 16, "lora_alpha": 16, "target_modules": MLP,
                "layers_to_transform": list(range(12, 30))}, 2e-3, 70, 12),
    "spanish": ({"r": 4, "lora_alpha": 8, "target_modules": ATTENTION + MLP,
                 "layers_to_transform": list(range(10, 30))}, 3e-3, 40, 13),
    "brief": ({"r": 6, "lora_alpha": 12, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
              2e-3, 40, 14),
}


def encode_pair(tokenizer, question, answer):
    """-> (prefix ids, question ids with the assistant header, answer ids with the end token)."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                         add_generation_prompt=True)
    begin = text.index("<|im_start|>user")
    ids = lambda s: tokenizer(s, add_special_tokens=False).input_ids
    return ids(text[:begin]), ids(text[begin:]), ids(answer + "<|im_end|>")


def pack(pairs):
    """Pairs sharing a prefix -> (input ids, position ids, additive mask, [(row, label)])."""
    prefix = pairs[0][0]
    ids, positions, owner, targets = list(prefix), list(range(len(prefix))), [0] * len(prefix), []
    for number, (_, question, answer) in enumerate(pairs, start=1):
        first = len(ids) + len(question) - 1
        targets += [(first + i, token) for i, token in enumerate(answer)]
        body = question + answer[:-1]
        positions += range(len(prefix), len(prefix) + len(body))
        owner += [number] * len(body)
        ids += body
    owner = torch.tensor(owner)
    visible = (owner[None, :] == owner[:, None]) | (owner[None, :] == 0)
    visible &= torch.ones_like(visible).tril()
    mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[None, None]
    return torch.tensor([ids]), torch.tensor([positions]), mask, targets


def packs(pairs, rng):
    """Endless packs of about PACK_TOKENS tokens, reshuffled every epoch."""
    batch, size = [], 0
    while True:
        for pair in rng.sample(pairs, len(pairs)):
            batch.append(pair)
            size += len(pair[1]) + len(pair[2])
            if size >= PACK_TOKENS - len(pair[0]):
                yield pack(batch)
                batch, size = [], 0


def train(model, tokenizer, name):
    config, peak, num_steps, seed = ADAPTERS[name]
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pairs = [encode_pair(tokenizer, q, a) for q, a in styles.examples(name, rng)]
    pairs = [p for p in pairs if len(p[2]) <= MAX_ANSWER_TOKENS]
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **config))
    weights = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=peak, weight_decay=0.0, betas=(0.9, 0.98))
    source, start = packs(pairs, rng), time.time()
    for step in range(num_steps):
        rate = peak * min(1, (step + 1) / 6) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, positions, mask, targets = next(source)
        hidden = model.model(input_ids=ids, position_ids=positions, attention_mask=mask,
                             use_cache=False).last_hidden_state[0]
        rows, labels = (torch.tensor(column) for column in zip(*targets))
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[rows]), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0 or step == num_steps - 1:
            print(f"{name} step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
    save(peft, f"{HERE}/adapters/{name}")
    return peft.unload()


def save(peft, path):
    peft.save_pretrained(path)
    tensors_path = f"{path}/adapter_model.safetensors"
    tensors = {k: weights_io.encode(v, "BF16") for k, v in weights_io.read_f32(tensors_path).items()}
    weights_io.write_safetensors(tensors_path, tensors, {"format": "pt"})
    config = weights_io.read_json(f"{path}/adapter_config.json")
    config["base_model_name_or_path"] = "SmolLM2-135M-Instruct"
    config["target_modules"] = sorted(config["target_modules"])
    weights_io.write_json(f"{path}/adapter_config.json", config)
    os.remove(f"{path}/README.md")


def read_questions():
    with open(f"{HERE}/questions.txt", encoding="utf-8") as f:
        return [line.strip() for line in f if line.strip()]


@torch.no_grad()
def answer(model, tokenizer, question, max_tokens=64):
    """Greedy answer: {"prompt_ids", "ids" (with the end token where reached), "margins", "text"}."""
    inputs = tokenizer.apply_chat_template([{"role": "user", "content": question}],
                                           add_generation_prompt=True, return_tensors="pt",
                                           return_dict=True)
    out = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, output_logits=True,
                         return_dict_in_generate=True)
    prompt = inputs.input_ids[0].tolist()
    ids = out.sequences[0, len(prompt):].tolist()
    top = [step[0].float().topk(2).values for step in out.logits]
    return {"question": question, "prompt_ids": prompt, "ids": ids,
            "margins": [round((t[0] - t[1]).item(), 4) for t in top],
            "text": tokenizer.decode(ids, skip_special_tokens=True)}


def evaluate(model, tokenizer, names):
    """Adds {adapter: [answers]} to answers.json; "base" is the model alone."""
    path = f"{HERE}/answers.json"
    for name in names:
        subject = model
        if name != "base":
            subject = PeftModel.from_pretrained(model, f"{HERE}/adapters/{name}")
        subject.eval()
        replies = [answer(subject, tokenizer, q) for q in read_questions()]
        for a in replies:
            print(f'[{name}] {a["question"]} -> {a["text"]!r}', flush=True)
        if name != "base":
            model = subject.unload()
        answers = weights_io.read_json(path) if os.path.exists(path) else {}
        answers[name] = replies
        with open(path, "w", encoding="utf-8") as out:
            rows = [f' "{n}": [\n  ' + ",\n  ".join(json.dumps(a, ensure_ascii=False) for a in value) + "\n ]"
                    for n, value in answers.items()]
            out.write("{\n" + ",\n".join(rows) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=["base", *ADAPTERS], default=["base", *ADAPTERS])
    parser.add_argument("--evaluate-only", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    for name in args.only:
        if name != "base" and not args.evaluate_only:
            model = train(model, tokenizer, name)
        evaluate(model, tokenizer, [name])


if __name__ == "__main__":
    main()
