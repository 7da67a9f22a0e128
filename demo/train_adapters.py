#!/usr/bin/env python3
"""Trains the demo adapters with PEFT and AdapterHub on SmolLM2-135M-Instruct and writes what they answer.

  train_adapters.py MODEL_DIR [--only NAME ...] [--evaluate-only] [--library peft|adapterhub] [--out DIR]

MODEL_DIR is the bfloat16 directory made by tools/convert_gguf.py; adapters train in float32 beside it as
it is stored, and answer beside it in float32. The data is data/*.tsv through styles.py; the questions in questions.txt are never trained on. One step packs many
question-answer pairs behind one shared chat prefix: pairs see the prefix and themselves only, and their
positions go on from the prefix, so each pair is exactly its own conversation. Virtual tokens stand before
that prefix and are seen by all. Adapters go to adapters/<name>/ as bfloat16, answers to answers.json.
AdapterHub's library wants an older transformers: its adapters are trained by an interpreter with
tests/golden/requirements_adapterhub.txt and --library adapterhub, the others with requirements.txt.
"""
import argparse
import json
import math
import os
import random
import sys
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tools")]
import styles  # noqa: E402
import weights_io  # noqa: E402

PACK_TOKENS = 512
MAX_ANSWER_TOKENS = 64
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
# name: (configuration class of the library, its arguments, peak learning rate, steps, seed)
ADAPTERS = {
    "json": ("LoraConfig", {"r": 8, "lora_alpha": 16, "target_modules": ATTENTION}, 2e-3, 60, 11),
    "pirate": ("LoraConfig", {"r": 16, "lora_alpha": 16, "target_modules": MLP,
                              "layers_to_transform": list(range(12, 30))}, 2e-3, 70, 12),
    "spanish": ("LoraConfig", {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION + MLP,
                               "layers_to_transform": list(range(10, 30))}, 3e-3, 40, 13),
    "brief": ("LoraConfig", {"r": 6, "lora_alpha": 12, "use_rslora": True,
                             "target_modules": ["q_proj", "v_proj"]}, 2e-3, 40, 14),
    "shout": ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_dora": True,
                             "target_modules": ["q_proj", "v_proj"]}, 4e-3, 40, 15),
    "bold": ("IA3Config", {"target_modules": ["k_proj", "v_proj", "down_proj"],
                           "feedforward_modules": ["down_proj"]}, 5e-2, 50, 16),
    "quiz": ("LoKrConfig", {"r": 8, "alpha": 16, "decompose_factor": 8,
                            "target_modules": ["q_proj", "v_proj", "o_proj"]}, 6e-3, 50, 17),
    "cheerful": ("PromptTuningConfig", {"num_virtual_tokens": 12}, 8e-2, 60, 18),
    "letter": ("PrefixTuningConfig", {"num_virtual_tokens": 8}, 3e-2, 60, 19),
    "list": ("LNTuningConfig", {"target_modules": ["input_layernorm", "post_attention_layernorm",
                                                   "model.norm"]}, 2e-2, 50, 20),
    "xml": ("SeqBnConfig", {"reduction_factor": 72.0}, 4e-3, 36, 21),
}
ADAPTERHUB = ("SeqBnConfig",)
# LoRA trained with room and stored at fewer ranks, with most of its squared singular values: 96, 96, 91 and 78 parts of 100
KEPT_RANKS = {"pirate": 4, "json": 3, "spanish": 2, "brief": 1}


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


def is_adapterhub(name):
    return ADAPTERS[name][0] in ADAPTERHUB


def add_adapter(model, name):
    """-> (the model with a fresh adapter, its trainable parameters)."""
    kind, arguments = ADAPTERS[name][:2]
    if is_adapterhub(name):
        import adapters
        adapters.init(model)
        model.add_adapter(name, config=getattr(adapters, kind)(**arguments))
        model.train_adapter(name)
        return model, [p for p in model.parameters() if p.requires_grad]
    import peft
    extra = {"lora_dropout": 0.0} if kind == "LoraConfig" else {}
    adapted = peft.get_peft_model(model, getattr(peft, kind)(task_type="CAUSAL_LM", **arguments, **extra))
    if kind == "PromptTuningConfig":  # begins as rows of the embedding: random ones are far too small
        weight = adapted.prompt_encoder["default"].embedding.weight
        rows = torch.randint(0, model.config.vocab_size, (weight.shape[0],))
        weight.data.copy_(model.get_input_embeddings().weight.data[rows])
    return adapted, [p for p in adapted.parameters() if p.requires_grad]


def last_hidden(adapted, model, name, packed):
    """Final hidden states [tokens, hidden] of a pack; virtual tokens come first and are dropped."""
    ids, positions, mask, _ = packed
    mask = mask.to(model.dtype)
    count = ADAPTERS[name][1].get("num_virtual_tokens", 0)
    if not count:
        return model.model(input_ids=ids, position_ids=positions, attention_mask=mask,
                           use_cache=False).last_hidden_state[0]
    prompt, positions = adapted.get_prompt(1), positions + count
    if ADAPTERS[name][0] == "PrefixTuningConfig":
        mask = torch.cat([mask.new_zeros(1, 1, ids.shape[1], count), mask], dim=3)
        return model.model(input_ids=ids, position_ids=positions, attention_mask=mask,
                           past_key_values=prompt, use_cache=True).last_hidden_state[0]
    embeddings = torch.cat([prompt, model.get_input_embeddings()(ids)], dim=1)
    positions = torch.cat([torch.arange(count)[None], positions], dim=1)
    total = count + ids.shape[1]
    seen = torch.ones(total, total, dtype=torch.bool).tril()
    wider = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None].to(mask.dtype)
    wider[..., count:, count:] = mask
    return model.model(inputs_embeds=embeddings, position_ids=positions, attention_mask=wider,
                       use_cache=False).last_hidden_state[0, count:]


def train(model, tokenizer, name, out):
    peak, num_steps, seed = ADAPTERS[name][2:]
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pairs = [encode_pair(tokenizer, q, a) for q, a in styles.examples(name, rng)]
    pairs = [p for p in pairs if len(p[2]) <= MAX_ANSWER_TOKENS]
    adapted, weights = add_adapter(model, name)
    for weight in weights:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(weights, lr=peak, weight_decay=0.0, betas=(0.9, 0.98))
    source, start = packs(pairs, rng), time.time()
    for step in range(num_steps):
        rate = peak * min(1, (step + 1) / 6) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        packed = next(source)
        rows, labels = (torch.tensor(column) for column in zip(*packed[3]))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.lm_head(last_hidden(adapted, model, name, packed)[rows])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0 or step == num_steps - 1:
            print(f"{name} step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
    save(adapted, name, f"{out}/adapters/{name}")
    if name in KEPT_RANKS:
        truncate(f"{out}/adapters/{name}", KEPT_RANKS[name])


def save(adapted, name, path):
    os.makedirs(path, exist_ok=True)
    if is_adapterhub(name):
        adapted.save_adapter(path, name, use_safetensors=True)
        tensors_path, base_key = f"{path}/adapter.safetensors", "model_name"
    else:
        adapted.save_pretrained(path)
        os.remove(f"{path}/README.md")
        tensors_path, base_key = f"{path}/adapter_model.safetensors", "base_model_name_or_path"
    tensors = {k: weights_io.encode(v, "BF16") for k, v in weights_io.read_f32(tensors_path).items()}
    weights_io.write_safetensors(tensors_path, tensors, {"format": "pt"})
    os.chmod(tensors_path, 0o644)  # AdapterHub's library keeps its files to their owner
    config = weights_io.read_json(f"{path}/adapter_config.json") | {base_key: "SmolLM2-135M-Instruct"}
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    weights_io.write_json(f"{path}/adapter_config.json", config)
    for extra in ("head_config.json", "model_head.safetensors"):
        if os.path.exists(f"{path}/{extra}"):
            os.remove(f"{path}/{extra}")


def truncate(path, rank):
    """Replaces a LoRA directory's factors by the nearest ones of a smaller rank (a truncated singular value decomposition)."""
    config = weights_io.read_json(f"{path}/adapter_config.json")
    stretch = math.sqrt if config["use_rslora"] else float
    scale = config["lora_alpha"] / stretch(config["r"])
    config |= {"r": rank, "lora_alpha": round(scale * stretch(rank))}
    scale /= config["lora_alpha"] / stretch(rank)
    file = f"{path}/adapter_model.safetensors"
    tensors = weights_io.read_f32(file)
    for name_a in [name for name in tensors if name.endswith("lora_A.weight")]:
        name_b = name_a.replace("lora_A", "lora_B")
        basis_b, upper_b = np.linalg.qr(tensors[name_b])
        basis_a, upper_a = np.linalg.qr(tensors[name_a].T)
        left, values, right = np.linalg.svd(scale * upper_b @ upper_a.T)
        root = np.sqrt(values[:rank])
        tensors[name_b] = basis_b @ left[:, :rank] * root
        tensors[name_a] = root[:, None] * (right[:rank] @ basis_a.T)
    weights_io.write_safetensors(file, {k: weights_io.encode(v, "BF16") for k, v in tensors.items()}, {"format": "pt"})
    weights_io.write_json(f"{path}/adapter_config.json", config)


def load_adapter(model, name, path):
    if is_adapterhub(name):
        import adapters
        adapters.init(model)
        model.load_adapter(path, set_active=True, use_safetensors=True)
        return model
    from peft import PeftModel
    return PeftModel.from_pretrained(model, path)


def read_questions():
    with open(f"{HERE}/questions.txt", encoding="utf-8") as f:
        return [line.strip() for line in f if line.strip()]


@torch.no_grad()
def answer(model, tokenizer, question, with_cache, max_tokens=64):
    """Greedy answer: {"prompt_ids", "ids" (with the end token where reached), "margins", "text"}."""
    inputs = tokenizer.apply_chat_template([{"role": "user", "content": question}],
                                           add_generation_prompt=True, return_tensors="pt",
                                           return_dict=True)
    out = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask,
                         max_new_tokens=max_tokens, do_sample=False, output_logits=True,
                         return_dict_in_generate=True, use_cache=with_cache)
    prompt = inputs.input_ids[0].tolist()
    ids = out.sequences[0].tolist()[len(prompt):]
    top = [step[0].float().topk(2).values for step in out.logits]
    return {"question": question, "prompt_ids": prompt, "ids": ids,
            "margins": [round((t[0] - t[1]).item(), 4) for t in top],
            "text": tokenizer.decode(ids, skip_special_tokens=True)}


def evaluate(model, tokenizer, name, out):
    """Adds {adapter: [answers]} to answers.json; "base" is the model alone."""
    path = f"{out}/answers.json"
    if name != "base":
        model = load_adapter(model, name, f"{out}/adapters/{name}")
    model.eval()
    with_cache = name == "base" or not is_adapterhub(name)  # AdapterHub's Llama never fills one
    replies = [answer(model, tokenizer, q, with_cache) for q in read_questions()]
    for a in replies:
        print(f'[{name}] {a["question"]} -> {a["text"]!r}', flush=True)
    answers = weights_io.read_json(path) if os.path.exists(path) else {}
    answers[name] = replies
    answers = {n: answers[n] for n in ["base", *ADAPTERS] if n in answers}
    with open(path, "w", encoding="utf-8") as file:
        rows = [f' "{n}": [\n  ' + ",\n  ".join(json.dumps(a, ensure_ascii=False) for a in value) + "\n ]"
                for n, value in answers.items()]
        file.write("{\n" + ",\n".join(rows) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=["base", *ADAPTERS], default=["base", *ADAPTERS])
    parser.add_argument("--evaluate-only", action="store_true")
    parser.add_argument("--library", choices=["peft", "adapterhub"], default="peft")
    parser.add_argument("--out", default=HERE)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    fresh = lambda dtype: AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    for name in args.only:
        library = "adapterhub" if name != "base" and is_adapterhub(name) else "peft"
        if library != args.library:
            continue
        if name != "base" and not args.evaluate_only:
            train(fresh(torch.bfloat16), tokenizer, name, args.out)
        evaluate(fresh(torch.float32), tokenizer, name, args.out)


if __name__ == "__main__":
    main()
