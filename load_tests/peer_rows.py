"""What peers that run in a Python process share: their pipe to the script, and the rows of an open
loop as `polyad bench --log` has them.
"""

import os


def claim_standard_output():
    """Keeps the pipe for our lines and sends what the library prints to standard error."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lines


def waiting(trace):
    """Requests with what is to be known of each, the next one last; seconds after the start."""
    return [dict(line, sent=None, ttft=None, last=None, written=0) for line in reversed(trace)]


def wrote(line, count, now):
    """`count` more tokens of a request have come."""
    line["last"] = now
    if line["ttft"] is None:
        line["ttft"] = now
    line["written"] += count


def row_of(line):
    since = lambda moment: (moment - line["at_s"]) * 1e3
    gaps = line["written"] - 1
    return {
        "at_s": line["at_s"],
        "tenant": line["tenant"],
        "model": line["model"],
        "end": "completed" if line["written"] == line["output_tokens"] else "failed",
        "input_tokens": line["prompt_tokens"],
        "output_tokens": line["written"],
        "sent_ms": since(line["sent"]),
        "ttft_ms": since(line["ttft"]),
        "tpot_ms": (line["last"] - line["ttft"]) * 1e3 / gaps if gaps > 0 else None,
        "e2el_ms": since(line["last"]),
    }
