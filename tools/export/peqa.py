#!/usr/bin/env python3
"""Converts PEQA's scales to polyad's container: peqa.py TRAINED SCALES OUT --base NAME [options]

PEQA (Kim et al. 2023) trains the scales of a quantised base and nothing else: W = s (q - z) becomes W' = s' (q - z), which
is s' / s times W. TRAINED and SCALES are files with <module>.scales of the same shapes, [out], [out, 1] or [out, groups],
or with --layout gptq [groups, out], so that SCALES may be a GPTQ base's own weights. Modules whose scales are the base's
are left out; a scale a row is a number for each output, a scale a group (of --group inputs) a change of its columns.
--sha256 is what `polyad inspect` prints as weights_sha256 of the base: over any other the container is then refused.
Files are .safetensors, or torch's, which need torch. Needs numpy.
"""
import numpy as np

from command import arguments, read_state
from container import Container
from places import place_of

_LEAF = ".scales"


def _rows(name, value, layout):
    value = np.asarray(value, dtype=np.float32)
    value = value[:, None] if value.ndim == 1 else value.T if layout == "gptq" else value
    if value.ndim != 2 or not np.all(np.isfinite(value)) or not np.all(value != 0):
        raise SystemExit(f"tensor {name}: expected finite scales other than 0, [out] or [out, groups]")
    return value


def convert(trained, base, box, group, layout="rows"):
    """Adds the ops of every module whose scales changed; both are {name: array}."""
    for name, value in trained.items():
        if not name.endswith(_LEAF):
            raise SystemExit(f"tensor {name}: PEQA trains scales alone")
        place = place_of(name.removesuffix(_LEAF))
        if place is None or name not in base:
            raise SystemExit(f"tensor {name}: no such scales in a base that polyad serves")
        new, old = _rows(name, value, layout), _rows(name, base[name], layout)
        if new.shape != old.shape:
            raise SystemExit(f"tensor {name}: expected {old.shape}, got {new.shape}")
        ratio = new / old
        groups = ratio.shape[1]
        if np.all(ratio == 1):
            continue
        if groups == 1:
            box.add(place, "os", c=ratio[:, 0])
            continue
        box.add(place, "hd", u=np.kron(np.eye(groups), np.ones(group)), v=ratio - 1)
    return box


def main():
    args = arguments(__doc__, "trained", "scales", "out", base=str, sha256=(str, ""), group=(int, 128),
                     layout=["rows", "gptq"])
    box = Container("peqa", args.base, base_sha256=args.sha256)
    convert(read_state(args.trained), read_state(args.scales), box, args.group, args.layout).write(args.out)


if __name__ == "__main__":
    main()
