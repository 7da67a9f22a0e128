#!/usr/bin/env python3
"""Writes the goldens of tests/engine/text from the originals: Hugging Face `tokenizers` and jinja2.

  make_text_goldens.py SMOLLM2.gguf      needs PyPI tokenizers, jinja2 and gguf; versions go to VERSIONS

Files (of *.bin.gz the bytes inside; all integers LEB128 varints, all strings length-prefixed):
  corpus.bin            count, then the strings
  NAME.json             a small tokenizer
  smollm2.merges.bin    the demo model's vocabulary: the tokens that no merge makes, then each merge as two ids
  NAME.ids.bin          per string: encoded ids; 0 or 1 + the ids of the same text as a user's; 0 if it decodes to itself, else 1 + the decoded text
                        then a count of random id sequences: ids, decoded text, decoded text without special tokens
"""
import gzip
import json
import os
import random
import sys

import gguf
import jinja2
import tokenizers
from tokenizers import Tokenizer

import chat_goldens
import small_tokenizers
import text_corpus

HERE = os.path.dirname(os.path.abspath(__file__))


def varint(value):
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text_field(text):
    data = text.encode("utf-8")
    return varint(len(data)) + data


def ids_field(ids):
    return varint(len(ids)) + b"".join(varint(i) for i in ids)


def write_gzipped(name, data):
    write(name + ".gz", gzip.compress(data, 9, mtime=0))


def write(name, data):
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data)


def smollm2_json(path):
    """The demo model's tokenizer as a tokenizer.json dict, and the compact form of its vocabulary."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [m.split(" ") for m in fields["tokenizer.ggml.merges"].contents()]
    types = fields["tokenizer.ggml.token_type"].contents()
    ids = {t: i for i, t in enumerate(tokens)}
    base = len(tokens) - len(merges)
    assert all(a + b == tokens[base + i] for i, (a, b) in enumerate(merges))
    compact = varint(base) + b"".join(varint(types[i]) + text_field(tokens[i]) for i in range(base))
    compact += varint(len(merges)) + b"".join(varint(ids[a]) + varint(ids[b]) for a, b in merges)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, t in enumerate(tokens) if types[i] == 3]
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                 ignore_merges=False, vocab=ids, merges=merges)
    data = dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                pre_tokenizer=dict(type="Sequence", pretokenizers=[dict(type="Digits", individual_digits=True), byte_level]), post_processor=None,
                decoder=byte_level, model=model)
    return data, compact, fields["tokenizer.chat_template"].contents()


def user_tokenizer(data):
    """What a user's text may be encoded with: no added token but runs of white space."""
    kept = dict(data)
    kept["added_tokens"] = [t for t in data["added_tokens"] if t["special"] or t["content"].isspace()]
    tokenizer = Tokenizer.from_str(json.dumps(kept))
    tokenizer.encode_special_tokens = True
    return tokenizer


def random_sequences(tokenizer, rng):
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    interesting = [i for i in range(size) if (tokenizer.id_to_token(i) or "").startswith(("<", "\u2581", "\u0120"))]
    for _ in range(300):
        pool = interesting if rng.random() < 0.5 else range(size)
        yield [rng.choice(pool) if rng.random() < 0.8 else rng.randrange(size + 3) for _ in range(rng.randint(0, 20))]


def goldens(data, strings):
    tokenizer = Tokenizer.from_str(json.dumps(data))
    user = user_tokenizer(data)
    out = b""
    for raw in strings:
        text = raw.decode("utf-8", errors="replace")
        ids = tokenizer.encode(text).ids
        user_ids = user.encode(text).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        out += ids_field(ids)
        out += varint(0) if user_ids == ids else varint(1) + ids_field(user_ids)
        out += varint(0) if decoded == text else varint(1) + text_field(decoded)
    sequences = list(random_sequences(tokenizer, random.Random(3)))
    out += varint(len(sequences))
    for ids in sequences:
        out += ids_field(ids) + text_field(tokenizer.decode(ids, skip_special_tokens=False)) + text_field(tokenizer.decode(ids, skip_special_tokens=True))
    return out


def main():
    strings = text_corpus.awkward_strings()
    write_gzipped("corpus.bin", varint(len(strings)) + b"".join(varint(len(s)) + s for s in strings))
    lines = text_corpus.training_text()
    for name, make in small_tokenizers.SMALL.items():
        data = make(lines)
        write(name + ".json", (json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8"))
        write_gzipped(name + ".ids.bin", goldens(data, strings))
    data, compact, template = smollm2_json(sys.argv[1])
    write_gzipped("smollm2.merges.bin", compact)
    write_gzipped("smollm2.ids.bin", goldens(data, strings))
    cases = chat_goldens.render_cases(template, Tokenizer.from_str(json.dumps(data)))
    write("chat_cases.json", (json.dumps(cases, ensure_ascii=True, indent=0) + "\n").encode("ascii"))
    versions = "tokenizers %s\njinja2 %s\n" % (tokenizers.__version__, jinja2.__version__)
    write("VERSIONS", versions.encode("ascii"))


if __name__ == "__main__":
    main()
