"""Small tokenizers trained with Hugging Face `tokenizers` in the configurations that real models have.

Each function returns the tokenizer.json as a dict. The pre-tokenisers' patterns are the published ones.
"""
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
META = "\u2581"


def _special(text, **kw):
    return AddedToken(text, special=True, normalized=False, **kw)


def _train(tokenizer, lines, size, **kw):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2, **kw)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _byte_level(lines, pattern, size, normalizer=None, digits=False):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    parts = []
    if digits:
        parts.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern is not None:
        parts.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    tokenizer.pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, lines, size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _json(tokenizer):
    return json.loads(tokenizer.to_str())


def gpt2(lines):
    tokenizer = _byte_level(lines, None, 1400)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([_special("<|endoftext|>")])
    return _json(tokenizer)


def llama3(lines):
    tokenizer = _byte_level(lines, LLAMA3, 1500)
    tokenizer.add_special_tokens([_special(t) for t in ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    data = _json(tokenizer)
    data["model"]["ignore_merges"] = True
    return data


def qwen2(lines):
    tokenizer = _byte_level(lines, QWEN2, 1500, normalizer=normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([_special(t) for t in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ["<tool_call>", "</tool_call>", "<think>", "</think>"]])
    return _json(tokenizer)


def tekken(lines):
    tokenizer = _byte_level(lines, TEKKEN, 1300)
    tokenizer.add_special_tokens([_special(t) for t in ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]])
    data = _json(tokenizer)
    data["model"]["ignore_merges"] = True
    return data


def starcoder(lines):
    tokenizer = _byte_level(lines, None, 1200, digits=True)
    tokenizer.add_special_tokens([_special(t, rstrip=t == "<|end|>") for t in ["<|endoftext|>", "<reponame>", "<gh_stars>", "<|end|>"]])
    # Runs of spaces as tokens of their own, and one token of each awkward kind.
    tokenizer.add_tokens([AddedToken(" " * n, special=False, normalized=False) for n in (4, 8, 16)])
    tokenizer.add_special_tokens([_special("<mask>", lstrip=True), _special("<word>", single_word=True)])
    return _json(tokenizer)


def scored_vocabulary(lines, size):
    """A SentencePiece-like vocabulary: the tokens and their scores, unknown, control and byte tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=META, prepend_scheme="always")
    _train(tokenizer, lines, size, limit_alphabet=140)
    model = _json(tokenizer)["model"]
    chars = [t for t in sorted(model["vocab"], key=model["vocab"].get) if len(t) == 1]
    merged = list(dict.fromkeys(a + b for a, b in model["merges"]))
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + merged + chars
    types = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(chars))
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged) + len(chars))]
    return tokens, scores, types


def merges_of_scores(tokens, scores, types):
    """All the ways to cut a token in two tokens, best score first, as the conversion from SentencePiece has them."""
    normal = {t for t, ty in zip(tokens, types) if ty == 1}
    found = []
    for token, score, kind in zip(tokens, scores, types):
        if kind == 1:
            found += [(score, i, len(token) - i, token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in normal and token[i:] in normal]
    found.sort(key=lambda c: (-c[0], -c[1], -c[2]))
    return [[a, b] for _, _, _, a, b in found]


def _spm(lines, size):
    tokens, scores, types = scored_vocabulary(lines, size)
    tokenizer = Tokenizer(models.BPE())
    data = _json(tokenizer)
    data["model"].update(vocab={t: i for i, t in enumerate(tokens)}, merges=merges_of_scores(tokens, scores, types), unk_token="<unk>",
                         fuse_unk=True, byte_fallback=True)
    data["added_tokens"] = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i in range(3)]
    data["post_processor"] = dict(type="TemplateProcessing", single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                  pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                                  special_tokens={"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}})
    data["decoder"] = dict(type="Sequence", decoders=[dict(type="Replace", pattern={"String": META}, content=" "), dict(type="ByteFallback"),
                                                      dict(type="Fuse"), dict(type="Strip", content=" ", start=1, stop=0)])
    return data


def llama2(lines):
    data = _spm(lines, 1300)
    data["normalizer"] = dict(type="Sequence", normalizers=[dict(type="Prepend", prepend=META), dict(type="Replace", pattern={"String": " "}, content=META)])
    return data


def mistral(lines):
    data = _spm(lines, 1100)
    data["pre_tokenizer"] = dict(type="Metaspace", replacement=META, prepend_scheme="first", split=False)
    return data


def kitchen(lines):
    """Parts that no single model has together: lower case, unknown tokens, punctuation, a Metaspace decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(left=True, right=True), normalizers.NFKC(), normalizers.Lowercase(),
                                                 normalizers.Replace(Regex(r"\d{4,}"), "#")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Digits(individual_digits=False),
                                                       pre_tokenizers.Split("ss", "contiguous"), pre_tokenizers.Metaspace(replacement=META, prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(replacement=META, prepend_scheme="always")
    _train(tokenizer, lines, 900, special_tokens=["<unk>"], limit_alphabet=90)
    tokenizer.add_special_tokens([_special("<s>")])
    tokenizer.add_tokens([AddedToken("W\u00f6rd", normalized=True, single_word=True), AddedToken("<|IM_END|>", normalized=True)])
    return _json(tokenizer)


SMALL = dict(gpt2=gpt2, llama3=llama3, qwen2=qwen2, tekken=tekken, starcoder=starcoder, llama2=llama2, mistral=mistral, kitchen=kitchen)
