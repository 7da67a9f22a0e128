#!/usr/bin/env python3
"""Transformers and PEFT as a peer: open loops on stdin, results on stdout.

  peft_peer.py MODEL [NAME=DIR ...]      MODEL: a Hugging Face directory; DIR: a LoRA each

Runs under a Python that has torch, transformers and, for adapters, peft. Prints "ready", then
answers each JSON line {trace, seed} as openvino_peer.py does. It is a library and no server: what
has arrived, 32 requests at most, is one padded batch, mixed by PEFT's `adapter_names`; what arrives
meanwhile waits for its end.
"""

import json
import os
import random
import sys
import time

import load
import peer_rows

MAX_BATCH = 32
PAD_ID = 0


class Replay:
    """One open loop. generate(batch, wrote) answers a batch and calls wrote(request, tokens)."""

    def __init__(self, generate, trace):
        self.generate, self.done = generate, []
        self.waiting = peer_rows.waiting(trace)
        self.began = 0.0

    def now(self):
        return time.perf_counter() - self.began

    def arrived(self):
        batch = []
        while self.waiting and len(batch) < MAX_BATCH and self.waiting[-1]["at_s"] <= self.now():
            batch.append(self.waiting.pop())
            batch[-1]["sent"] = self.now()
        return batch

    def result(self):
        self.began = time.perf_counter()
        while self.waiting:
            batch = self.arrived()
            if batch:
                self.generate(batch, lambda line, count: peer_rows.wrote(line, count, self.now()))
                self.done += map(peer_rows.row_of, batch)
            else:
                time.sleep(max(0.0, self.waiting[-1]["at_s"] - self.now()))
        return {"duration": self.now(), "rows": self.done}


class Generator:
    """Greedy answers of a model to batches of random prompts."""

    def __init__(self, torch, model, has_adapters):
        self.torch, self.model, self.has_adapters = torch, model, has_adapters
        self.rng = random.Random()

    def prompts(self, batch):
        """-> (token ids, attention mask), padded at the left."""
        longest = max(line["prompt_tokens"] for line in batch)
        ids, mask = [], []
        for line in batch:
            count = line["prompt_tokens"]
            drawn = [
                self.rng.randrange(load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID) for _ in range(count)
            ]
            ids.append([PAD_ID] * (longest - count) + drawn)
            mask.append([0] * (longest - count) + [1] * count)
        return self.torch.tensor(ids), self.torch.tensor(mask)

    def __call__(self, batch, wrote):
        ids, mask = self.prompts(batch)

        def step(_, __, **___):
            for line in batch:
                if line["written"] < line["output_tokens"]:
                    wrote(line, 1)
            left = [line["written"] >= line["output_tokens"] for line in batch]
            return self.torch.tensor(left)

        named = {"adapter_names": [line["model"] for line in batch]} if self.has_adapters else {}
        with self.torch.inference_mode():
            self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(line["output_tokens"] for line in batch),
                do_sample=False,
                stopping_criteria=[step],
                **named,
            )


def load_model(torch, transformers, path, adapters):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    if adapters:
        import peft

        for number, (name, folder) in enumerate(adapters.items()):
            if number == 0:
                model = peft.PeftModel.from_pretrained(model, folder, adapter_name=name)
            else:
                model.load_adapter(folder, adapter_name=name)
        model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD_ID
    return model.eval()


def main():
    lines = peer_rows.claim_standard_output()
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count())
    adapters = dict(word.split("=", 1) for word in sys.argv[2:])
    model = load_model(torch, transformers, sys.argv[1], adapters)
    generate = Generator(torch, model, bool(adapters))
    lines.write("ready\n")
    for line in sys.stdin:
        ask = json.loads(line)
        generate.rng = random.Random(ask["seed"])
        lines.write(json.dumps(Replay(generate, ask["trace"]).result()) + "\n")


if __name__ == "__main__":
    main()
