"""smollm2/: what SmolLM2-135M-Instruct makes of text.txt, in float32 and in bfloat16.

The text's tokens are cut into windows of 512, each scored alone; a last partial window is dropped. The
weights are the bfloat16 directory of tools/convert_gguf.py, widened for float32. bfloat16 shows how far a
correct half-precision run may stray.
"""
import math
import os
import time

import numpy as np
import torch

import golden_lib
from golden_lib import weights_io

WINDOW = 512
# (window, position) whose whole rows of logits are kept.
KEPT_ROWS = ((0, 511), (1, 255))


def _windows(path, model_dir):
    from tokenizers import Tokenizer
    with open(path, encoding="utf-8") as f:
        ids = Tokenizer.from_file(f"{model_dir}/tokenizer.json").encode(f.read()).ids
    count = len(ids) // WINDOW
    return torch.tensor(ids[:count * WINDOW]).view(count, WINDOW)


def _load(model_dir, dtype):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype,
                                                attn_implementation="eager").eval()


def _score(logits, ids):
    """One window: logits [512, vocab] -> (argmax, margin, best logit, next-token loss [511])."""
    top = logits.topk(2, dim=-1)
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return (top.indices[:, 0], top.values[:, 0] - top.values[:, 1], top.values[:, 0], loss)


def _columns(rows, prefix):
    argmax, margin, best, loss = (torch.stack(column).numpy() for column in zip(*rows))
    return {f"{prefix}.argmax": weights_io.encode(argmax, "I32"),
            f"{prefix}.margin": weights_io.encode(margin, "F32"),
            f"{prefix}.best_logit": weights_io.encode(best, "F32"),
            f"{prefix}.loss": weights_io.encode(loss, "F32")}


def build(out, model_dir):
    ids = _windows(f"{golden_lib.HERE}/smollm2/text.txt", model_dir)
    exact, half = _load(model_dir, torch.float32), _load(model_dir, torch.bfloat16)
    exact_rows, half_rows, errors, kept = [], [], [], []
    start = time.time()
    for number, window in enumerate(ids):
        logits = golden_lib.forward(exact, window[None])[0]
        rough = golden_lib.forward(half, window[None])[0]
        exact_rows.append(_score(logits, window))
        half_rows.append(_score(rough, window))
        errors.append((rough - logits).norm(dim=-1) / logits.norm(dim=-1))
        kept += [logits[row] for at, row in KEPT_ROWS if at == number]
        print(f"smollm2: window {number + 1} of {len(ids)}, {time.time() - start:.0f} s", flush=True)
    tensors = {"tokens": weights_io.encode(ids.numpy(), "I32"),
               "rows.at": weights_io.encode(np.array(KEPT_ROWS), "I32"),
               "rows.logits": weights_io.encode(torch.stack(kept).numpy(), "F32"),
               "bfloat16.relative_error": weights_io.encode(torch.stack(errors).numpy(), "F32")}
    tensors |= _columns(exact_rows, "float32") | _columns(half_rows, "bfloat16")
    perplexity = {name: math.exp(tensors[f"{name}.loss"][1].mean()) for name in ("float32", "bfloat16")}
    agree = (tensors["float32.argmax"][1] == tensors["bfloat16.argmax"][1]).mean()
    summary = {"num_windows": len(ids), "window": WINDOW,
               "perplexity": {k: round(v, 5) for k, v in perplexity.items()},
               "bfloat16_argmax_agreement": round(float(agree), 5),
               "bfloat16_mean_relative_error": round(float(torch.stack(errors).mean()), 6)}
    os.makedirs(f"{out}/smollm2", exist_ok=True)
    golden_lib.write_golden(f"{out}/smollm2", tensors, summary)
    print(summary)
