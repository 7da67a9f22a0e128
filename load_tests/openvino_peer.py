#!/usr/bin/env python3
"""OpenVINO GenAI's continuous batching as a peer: loads on stdin, results on stdout.

  openvino_peer.py MODEL      MODEL: an f16 GGUF file or an OpenVINO IR directory

Runs under a Python that has openvino-genai. Prints "ready", then answers each JSON line
{concurrency, requests, prompt_tokens, gen_tokens, seed} with one JSON line shaped like
load.run_once, and each {trace, seed}, an open loop of workloads.py, with {duration, rows}, rows as
`polyad bench --log` has them. Requests are handed over and read in this process, which spares it
the HTTP work that the servers do.
"""

import json
import random
import sys
import time

import load
import peer_rows

# Of 256, 512 and 4096 batched tokens, the last without split-fuse was the fastest at 32 requests.
KV_CACHE_GB = 1
MAX_BATCHED_TOKENS = 4096
MAX_SEQUENCES = 32


def make_pipeline(genai, model):
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = KV_CACHE_GB
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    scheduler.max_num_seqs = MAX_SEQUENCES
    scheduler.dynamic_split_fuse = False
    scheduler.enable_prefix_caching = False
    return genai.ContinuousBatchingPipeline(
        model, scheduler, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
    )


class Run:
    """One closed loop: keeps `concurrency` requests in the pipeline until all are answered."""

    def __init__(self, pipeline, make_prompt, config, ask):
        self.pipeline, self.make_prompt, self.config = pipeline, make_prompt, config
        self.waiting = [ask["prompt_tokens"]] * ask["requests"]
        self.concurrency = ask["concurrency"]
        self.active = {}
        self.ttft_ms, self.gaps_ms = [], []
        self.tokens = self.next_id = 0

    def admit(self):
        while self.waiting and len(self.active) < self.concurrency:
            prompt = self.make_prompt(self.waiting.pop())
            now = time.perf_counter()
            handle = self.pipeline.add_request(self.next_id, prompt, self.config)
            self.active[self.next_id] = [handle, now, None]
            self.next_id += 1

    def read(self, finished_status):
        for request_id, entry in list(self.active.items()):
            handle, started, last = entry
            while handle.can_read():
                now = time.perf_counter()
                self.tokens += sum(len(o.generated_ids) for o in handle.read().values())
                if last is None:
                    self.ttft_ms.append((now - started) * 1e3)
                else:
                    self.gaps_ms.append((now - last) * 1e3)
                entry[2] = last = now
            if handle.get_status() == finished_status:
                del self.active[request_id]

    def result(self, finished_status):
        started = time.perf_counter()
        self.admit()
        while self.active:
            self.pipeline.step()
            self.read(finished_status)
            self.admit()
        wall = time.perf_counter() - started
        return {
            "gen_tok_s": self.tokens / wall,
            "wall_s": wall,
            "gen_tokens": self.tokens,
            "requests": self.next_id,
            "errors": 0,
            "first_error": "",
            "ttft_p50_ms": load.percentile(self.ttft_ms, 50),
            "ttft_p99_ms": load.percentile(self.ttft_ms, 99),
            "itl_p50_ms": load.percentile(self.gaps_ms, 50),
            "itl_p99_ms": load.percentile(self.gaps_ms, 99),
        }


class Replay:
    """One open loop: requests are handed over at the first step that begins after their time."""

    def __init__(self, pipeline, make_prompt, make_config, trace):
        self.pipeline, self.make_prompt, self.make_config = pipeline, make_prompt, make_config
        self.waiting = peer_rows.waiting(trace)
        self.active, self.done = {}, []
        self.began = 0.0

    def now(self):
        return time.perf_counter() - self.began

    def admit(self):
        while self.waiting and self.waiting[-1]["at_s"] <= self.now():
            line = self.waiting.pop()
            prompt, config = self.make_prompt(line["prompt_tokens"]), self.make_config(line)
            number = len(self.active) + len(self.done)
            line["sent"] = self.now()
            self.active[number] = (self.pipeline.add_request(number, prompt, config), line)

    def read(self, finished_status):
        for number, (handle, line) in list(self.active.items()):
            while handle.can_read():
                count = sum(len(o.generated_ids) for o in handle.read().values())
                peer_rows.wrote(line, count, self.now())
            if handle.get_status() == finished_status:
                self.done.append(peer_rows.row_of(line))
                del self.active[number]

    def result(self, finished_status):
        self.began = time.perf_counter()
        while self.waiting or self.active:
            self.admit()
            if self.active:
                self.pipeline.step()
                self.read(finished_status)
            else:
                time.sleep(max(0.0, self.waiting[-1]["at_s"] - self.now()))
        return {"duration": self.now(), "rows": self.done}


def main():
    lines = peer_rows.claim_standard_output()
    import numpy
    import openvino
    import openvino_genai as genai

    pipeline = make_pipeline(genai, sys.argv[1])
    lines.write("ready\n")
    for line in sys.stdin:
        ask = json.loads(line)
        rng = random.Random(ask["seed"])

        def make_config(tokens):
            config = genai.GenerationConfig()
            config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
            return config

        def make_prompt(count):
            ids = [rng.randrange(load.FIRST_PROMPT_ID, load.LAST_PROMPT_ID) for _ in range(count)]
            return openvino.Tensor(numpy.array([ids], dtype=numpy.int64))

        if "trace" in ask:
            config_of = lambda line: make_config(line["output_tokens"])
            run = Replay(pipeline, make_prompt, config_of, ask["trace"])
        else:
            run = Run(pipeline, make_prompt, make_config(ask["gen_tokens"]), ask)
        lines.write(json.dumps(run.result(genai.GenerationStatus.FINISHED)) + "\n")


if __name__ == "__main__":
    main()
