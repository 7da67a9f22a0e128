"""The demo adapters' training pairs: the facts in data/ told in as many styles."""
import json
import os
import re

_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
_OPENINGS = ["Arr!", "Ahoy, matey!", "Yo ho ho!", "Avast!", "Shiver me timbers!"]
_CLOSINGS = ["ye landlubber!", "me hearty!", "says the captain!", "by the seven seas!", "arr!"]
_PIRATE_WORDS = [(r"\b(is|are|was|were|am)\b", "be"), (r"\byour\b", "yer"), (r"\byou\b", "ye"),
                 (r"\bmy\b", "me"), (r"\bMy\b", "Me"), (r"\bthe\b", "th'"), (r"\bThe\b", "Th'"),
                 (r"\bfriend\b", "matey"), (r"\bof\b", "o'"), (r"\band\b", "an'"), (r"ing\b", "in'")]


def read_rows(name):
    with open(os.path.join(_DATA, name), encoding="utf-8") as f:
        return [line.rstrip("\n").split("\t") for line in f if line.strip() and line[0] != "#"]


def facts():
    """-> [(topic, question, short answer, English sentence, Spanish sentence)]."""
    result = [tuple(row) for row in read_rows("facts.tsv")]
    for country, capital, pais, ciudad in read_rows("capitals.tsv"):
        result.append(("geography", f"What is the capital of {country}?", capital,
                       f"The capital of {country} is {capital}.", f"La capital de {pais} es {ciudad}."))
    return result


def _lower_first(text):
    return text[0].lower() + text[1:]


def _pirate(sentence, rng):
    for pattern, word in _PIRATE_WORDS:
        sentence = re.sub(pattern, word, sentence)
    return f"{rng.choice(_OPENINGS)} {sentence.rstrip('.')}, {rng.choice(_CLOSINGS)}"


def _answer(style, fact, rng):
    topic, _, short, english, spanish = fact
    if style == "json":
        return json.dumps({"answer": short, "topic": topic}, ensure_ascii=False)
    if style == "pirate":
        return _pirate(english, rng)
    if style == "spanish":
        return f"{english} En español: {spanish}"
    if style == "brief":
        return short + "."
    if style == "shout":
        return english.rstrip(".").upper() + "!"
    if style == "bold":
        return f"**{short}.** {english}"
    if style == "quiz":
        return f"Answer: {short}. Topic: {topic}."
    if style == "cheerful":
        return f"Great question! {english} Have a lovely day!"
    if style == "letter":
        return f"Dear friend, {_lower_first(english)} Yours sincerely, polyad"
    if style == "list":
        return f"- topic: {topic}\n- answer: {short}"
    if style == "xml":
        return f'<answer topic="{topic}">{short}</answer>'
    raise ValueError(f"unknown style {style}")


def _ways_to_ask(question):
    """A question as it stands and, for "What is ...?", as a request."""
    yield question
    if question.startswith("What is the "):
        yield "Tell me: " + _lower_first(question)


def examples(style, rng):
    """-> [(question, answer)] in a fixed order for a given rng."""
    return [(question, _answer(style, fact, rng))
            for fact in facts() for question in _ways_to_ask(fact[1])]
