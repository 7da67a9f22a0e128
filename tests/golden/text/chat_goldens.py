def render_cases(template, tokenizer):
    return {}
