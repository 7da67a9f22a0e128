#!/usr/bin/env python3
"""Records which base an adapter belongs to: base_record.py ADAPTER --sha256 DIGEST [--name NAME]

Writes polyad_base.json into the adapter's directory. DIGEST is what `polyad inspect BASE` prints as weights_sha256 for
the base that the adapter's change is added to: of a LoftQ adapter the quantised one that came out of its making, of a
QLoRA adapter the quantised one it was trained on. polyad then refuses the adapter over any other weights.
"""
import os
import string

from command import arguments
import weights_io

FILE = "polyad_base.json"


def record(adapter, digest, name):
    if not os.path.isdir(adapter):
        raise SystemExit(f"{adapter}: not a directory")
    digest = digest.lower()
    if len(digest) != 64 or not set(digest) <= set(string.hexdigits):
        raise SystemExit(f"--sha256: expected 64 hex digits, got {digest!r}")
    said = {"name": name} if name else {}
    weights_io.write_json(f"{adapter}/{FILE}", said | {"weights_sha256": digest})


def main():
    args = arguments(__doc__, "adapter", sha256=str, name=(str, ""))
    record(args.adapter, args.sha256, args.name)


if __name__ == "__main__":
    main()
