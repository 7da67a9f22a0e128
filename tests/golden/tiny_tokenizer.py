"""A 320-token byte-level BPE tokenizer with the pre-tokenizer of a real family.

Vocabulary: three special tokens, the 256 bytes, then merges trained on corpus.txt. The flavours carry the
names GGUF gives them (tokenizer.ggml.pre): gpt-2, smollm, qwen2, llama-bpe.
"""
import json
import os

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

import golden_lib
from golden_lib import weights_io

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 320
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
                 "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SAMPLE_TEXTS = ["Hello, world!", "the rain in 1984 isn't THEIRS", "  two  spaces\n\nand\tlines ",
                "naïve café — 東京 🦜", "x=12345; y_6 = [7, 8]", "<|im_start|>user\nhi<|im_end|>\n"]


def _split(digits):
    return Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits +
                 r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def _pre_tokenizer(flavour):
    by_regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if flavour == "gpt-2":
        return by_regex
    if flavour == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_regex])
    pattern = _split("{1,3}" if flavour == "llama-bpe" else "")
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(pattern, "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make(flavour):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer(flavour)
    tokenizer.decoder = decoders.ByteLevel()
    if flavour == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=[AddedToken(s, special=True) for s in SPECIAL],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train([os.path.join(golden_lib.HERE, "corpus.txt")], trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise SystemExit(f"corpus.txt gives {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    if flavour == "llama-bpe":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)])
    return tokenizer


def save(path, flavour):
    """Writes tokenizer.json and tokenizer_config.json; -> [{text, ids}] with special tokens as a prompt has them."""
    tokenizer = make(flavour)
    tokenizer.save(f"{path}/tokenizer.json", pretty=False)
    weights_io.write_json(f"{path}/tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2], "unk_token": SPECIAL[0], "model_max_length": 128,
        "add_bos_token": flavour == "llama-bpe", "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE})
    return [{"text": t, "ids": tokenizer.encode(t).ids} for t in SAMPLE_TEXTS]


def gguf_lists(path):
    """A saved tokenizer.json -> (tokens by id, merges as "left right")."""
    with open(f"{path}/tokenizer.json", encoding="utf-8") as f:
        model = json.load(f)["model"]
    tokens = [None] * len(model["vocab"])
    for token, index in model["vocab"].items():
        tokens[index] = token
    return tokens, [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
