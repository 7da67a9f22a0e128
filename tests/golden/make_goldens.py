#!/usr/bin/env python3
"""Regenerates the goldens, or checks that they can be; see README.md. Run through tools/golden."""
import argparse
import filecmp
import importlib
import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]

# Adapter families: tests/golden/recipes/<name>.py with build(out). One line adds one.
RECIPES = (
    "lora",
    "lora_forms",
    "lora_variants",
    "trainable_tokens",
    "changed_base",
    "qalora",
    "loftq",
    "quantised_bases",
    "gguf_lora",
    "reranked",
    "dora",
    "adalora",
    "vera",
    "loha",
    "vblora",
    "tinylora",
    "delora",
    "gralora",
    "randlora",
    "miss",
    "hra",
    "deft",
    "peanut",
    "poly",
    "xlora",
    "compositions",
    "prompt_learning",
    "adaption_prompt",
    "alora",
    "ia3",
    "ln_tuning",
    "bitfit",
    "beft",
    "shira",
    "supertuning",
    "lokr",
    "oft",
    "boft",
    "road",
    "hira",
    "c3a",
    "glora",
    "osf",
    "frod",
    "unilora",
    "ssf",
    "fact",
    "repadapter",
    "kronecker",
    "sparse_masks",
    "subsets",
    "pruned_lora",
    "peqa",
    "said",
    "container_ops",
    "container_prompts",
    "exported",
    "arrow",
    "lily",
    "container_bottlenecks",
    "llm_adapters",
    "hypernets",
    "propetl",
    "adamix",
    "ciat",
    "coda",
    "vpt",
    "biadapter",
    "glora_supernet",
    "llama_adapter",
    "longlora",
)
# Those whose library needs an environment of its own (requirements_adapterhub.txt); made when named.
OTHER_RECIPES = (
    "adapterhub",
    "adapterhub_setups",
)
PARTS = ("models", "gguf", "quantised", "rope", *RECIPES)  # what no argument means
ON_REQUEST = (*OTHER_RECIPES, "smollm2")
# Float32 sums may be ordered otherwise on another machine; token ids and weights may not differ.
LOGIT_TOLERANCE = 1e-3


def build(parts, out, smollm2_dir):
    if "models" in parts:
        import base_models
        base_models.build(out)
    if "gguf" in parts:
        import gguf_models
        gguf_models.build(out)
    if "quantised" in parts:
        import quantized_models
        quantized_models.build(out)
    if "rope" in parts:
        import rope_goldens
        rope_goldens.build(out)
    for name in (*RECIPES, *OTHER_RECIPES):
        if name in parts:
            importlib.import_module(f"recipes.{name}").build(out)
    if "smollm2" in parts:
        import smollm2_text
        smollm2_text.build(out, smollm2_dir)


def same(made, committed):
    """Equal bytes, or for a golden equal integers and floats within LOGIT_TOLERANCE."""
    if not os.path.exists(committed):
        return False
    if filecmp.cmp(made, committed, shallow=False):
        return True
    import numpy as np
    import weights_io
    if made.endswith("golden.json"):
        drop = ("made_with", "min_greedy_margin", "logits_std", "largest_logit_change")
        a, b = ({k: v for k, v in weights_io.read_json(p).items() if k not in drop}
                for p in (made, committed))
        return a == b
    if not made.endswith("goldens.safetensors"):
        return False
    a, b = weights_io.read_safetensors(made), weights_io.read_safetensors(committed)
    return a.keys() == b.keys() and all(
        a[k][0] == b[k][0] and a[k][1].shape == b[k][1].shape and
        np.allclose(a[k][1], b[k][1], rtol=0, atol=LOGIT_TOLERANCE if a[k][0] == "F32" else 0)
        for k in a)


def check(parts, smollm2_dir):
    """Builds elsewhere and compares; -> number of files that differ."""
    with tempfile.TemporaryDirectory() as out:
        build(parts, out, smollm2_dir)
        files = [os.path.relpath(os.path.join(where, f), out)
                 for where, _, names in os.walk(out) for f in names]
        wrong = [f for f in sorted(files) if not same(os.path.join(out, f), os.path.join(HERE, f))]
    for f in wrong:
        print(f"differs from what is committed: {f}")
    print(f"{len(files) - len(wrong)} of {len(files)} files as committed")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*",
                        help=f"of {', '.join(PARTS)} (default: these), {', '.join(ON_REQUEST)}")
    parser.add_argument("--only", metavar="REGEX", default="",
                        help="of the adapters, those whose <model>/<name> it is found in")
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead")
    parser.add_argument("--smollm2", metavar="DIR", help="bfloat16 directory of SmolLM2-135M-Instruct")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    parts = args.parts or PARTS
    if unknown := set(parts) - set(PARTS) - set(ON_REQUEST):
        parser.error(f"unknown parts {sorted(unknown)}")
    if "smollm2" in parts and not args.smollm2:
        parser.error("smollm2 needs --smollm2 DIR")
    import torch
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    import adapter_goldens
    adapter_goldens.WHAT_TO_BUILD = re.compile(args.only)
    if args.check:
        sys.exit(check(parts, args.smollm2) > 0)
    build(parts, HERE, args.smollm2)


if __name__ == "__main__":
    main()
