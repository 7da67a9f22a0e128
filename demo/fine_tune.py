#!/usr/bin/env python3
"""Fine-tunes the demo model in full with transformers: every matrix and norm but the embedding, which stays frozen.

  fine_tune.py MODEL.gguf OUT_DIR [--steps 160] [--threads 2] [--texts-only]

MODEL.gguf is the demo model's file (tools/fetch_demo_model); transformers dequantises it, so that what is trained
starts from the very weights that are served. Text is ferry.py's, each token a target. Writes to OUT_DIR:
  fine_tuned/      a Hugging Face directory in bfloat16
  held_out.txt     conversations whose questions are not trained on
  calibrate.txt    a part of the trained conversations
and prints the perplexity of base and fine-tuned model over windows of held_out.txt. Steps and seeds are fixed; another
machine's sums may differ in the last bits, and training magnifies that.
"""
import argparse
import math
import os
import random
import sys
import time

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tools")]
import convert_gguf  # noqa: E402
import ferry  # noqa: E402
import weights_io  # noqa: E402

# All this runs on the CPU; transformers asks the CUDA runtime, which may be missing, about captures.
torch.cuda.is_current_stream_capturing = lambda: False

WINDOW_TOKENS = 512
PEAK_RATE = 2e-4
WARM_UP_STEPS = 10
SEED = 41
NUM_CALIBRATION = 90  # conversations


def write_tokenizer(model_path, out):
    """Writes the GGUF's tokenizer to a model directory and returns it."""
    fields = gguf.GGUFReader(model_path).fields
    tokenizer, config = convert_gguf.hf_tokenizer({name: field.contents() for name, field in fields.items()})
    os.makedirs(out, exist_ok=True)
    weights_io.write_json(f"{out}/tokenizer.json", tokenizer)
    weights_io.write_json(f"{out}/tokenizer_config.json", config)
    return PreTrainedTokenizerFast.from_pretrained(out)


def write_texts(tokenizer, out):
    """Writes the two texts and returns all (trained, held-out) conversations."""
    trained, held_out = ferry.conversations(tokenizer)
    for name, texts in (("held_out", held_out), ("calibrate", trained[:NUM_CALIBRATION])):
        with open(f"{out}/{name}.txt", "w", encoding="utf-8") as file:
            file.write("".join(texts))
    return trained, held_out


def windows(tokenizer, texts):
    """The texts one behind the other -> ids [windows, WINDOW_TOKENS]; a last partial window is dropped."""
    ids = tokenizer("".join(texts), add_special_tokens=False).input_ids
    count = len(ids) // WINDOW_TOKENS
    return torch.tensor(ids[:count * WINDOW_TOKENS]).view(count, WINDOW_TOKENS)


def batches(tokenizer, texts):
    """Endless windows, [1, WINDOW_TOKENS] each; the conversations are reshuffled for every epoch."""
    rng = random.Random(SEED)
    while True:
        yield from windows(tokenizer, rng.sample(texts, len(texts))).split(1)


def load_base(path):
    """The file's weights in float32, in a model that knows nothing of their file: transformers saves no model of a GGUF."""
    folder, name = os.path.split(os.path.abspath(path))
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model.eval()


def next_token_loss(model, ids):
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def perplexity(model, tokenizer, texts):
    with torch.autocast("cpu", torch.bfloat16):
        losses = [next_token_loss(model, ids[None]).item() for ids in windows(tokenizer, texts)]
    return math.exp(sum(losses) / len(losses))


def train(model, tokenizer, texts, num_steps):
    model.get_input_embeddings().weight.requires_grad_(False)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    source, start = batches(tokenizer, texts), time.time()
    for step in range(num_steps):
        rate = PEAK_RATE * min(1, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            loss = next_token_loss(model, next(source))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == num_steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    path = f"{args.out}/fine_tuned"
    tokenizer = write_tokenizer(args.model, path)
    trained, held_out = write_texts(tokenizer, args.out)
    print(f"{sum(len(tokenizer(t).input_ids) for t in trained)} tokens to train on, "
          f"{sum(len(tokenizer(t).input_ids) for t in held_out)} held out", flush=True)
    if args.texts_only:
        return
    model = load_base(args.model)
    before = perplexity(model, tokenizer, held_out)
    print(f"held-out perplexity of the base {before:.3f}", flush=True)
    train(model, tokenizer, trained, args.steps)
    model = model.to(torch.bfloat16)
    model.save_pretrained(path)
    after = perplexity(model.float(), tokenizer, held_out)
    print(f"held-out perplexity {before:.3f} before, {after:.3f} after")


if __name__ == "__main__":
    main()
