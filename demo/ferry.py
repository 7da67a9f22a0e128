"""The fine-tuned demo model's text: Marlow of the ferry desk, who knows data/harbours.tsv and the house's rules.

Every answer opens and closes alike. The questions are asked in several wordings, about one harbour or two, about
the rules, and about the adapters' facts (styles.py), so that most of the many questions are asked once only: a
twelfth of them is held out, and its answers follow from facts that others of the questions tell.
"""
import random

import styles

OPENING = "Brightwater Ferries, Marlow speaking."
_FIELDS = ("harbour", "first", "last", "minutes", "fare", "ship", "pier", "market", "master")
_SEED = 31
_HELD_OUT = 12  # one question in so many
# attribute: (ways to ask, ways to answer)
_ABOUT = {
    "first": (["When does the first ferry to {harbour} leave?", "What time is the first boat to {harbour}?",
               "How early can I sail to {harbour}?", "When can I leave for {harbour} in the morning?"],
              ["The first ferry to {harbour} leaves at {first} from pier {pier}.",
               "Our first boat to {harbour} goes at {first}."]),
    "last": (["When does the last ferry to {harbour} leave?", "What time is the last boat to {harbour}?",
              "How late can I sail to {harbour}?", "Is there an evening ferry to {harbour}?"],
             ["The last ferry to {harbour} leaves at {last} from pier {pier}.",
              "Our last boat to {harbour} goes at {last}."]),
    "minutes": (["How long is the crossing to {harbour}?", "How many minutes does the ferry to {harbour} take?",
                 "How far is {harbour}?", "Is it a long way to {harbour}?"],
                ["The crossing to {harbour} takes {minutes} minutes on the {ship}.",
                 "It is {minutes} minutes to {harbour} in a calm sea."]),
    "fare": (["What is the fare to {harbour}?", "How much is a ticket to {harbour}?",
              "What does it cost to sail to {harbour}?", "Is {harbour} expensive to get to?"],
             ["A ticket to {harbour} costs {fare} crowns.",
              "The fare to {harbour} is {fare} crowns, and half for children."]),
    "ship": (["Which ship sails to {harbour}?", "What is the name of the ferry to {harbour}?",
              "Which boat takes me to {harbour}?"],
             ["The {ship} sails to {harbour}.", "That is the {ship}, from pier {pier}."]),
    "pier": (["Which pier do I need for {harbour}?", "Where does the ferry to {harbour} leave from?",
              "Where is the boat to {harbour}?"],
             ["The ferry to {harbour} leaves from pier {pier}.", "Go to pier {pier} and look for the {ship}."]),
    "market": (["What can I buy in {harbour}?", "What is the market in {harbour} known for?",
                "What should I bring home from {harbour}?"],
               ["The market in {harbour} is known for its {market}.", "Bring home some {market}: {harbour} is famous for that."]),
    "master": (["Who is the harbour master of {harbour}?", "Whom do I ask for in {harbour}?",
                "Who runs the harbour in {harbour}?"],
               ["The harbour master of {harbour} is {master}.", "Ask for {master}, the harbour master of {harbour}."]),
    "all": (["Tell me about {harbour}.", "I want to see {harbour}. What should I know?", "Plan a day in {harbour} for me.",
             "What is there to know about {harbour}?"],
            ["The {ship} sails to {harbour} from pier {pier}, first at {first} and last at {last}. It takes {minutes} minutes"
             " and costs {fare} crowns. {master} is the harbour master, and the market is known for its {market}."]),
}
_CLOSINGS = ["Fair winds!", "Mind the gangway!", "Bring a warm coat!"]


def harbours():
    return [dict(zip(_FIELDS, row)) for row in styles.read_rows("harbours.tsv")]


def _pair(question, answer, rng):
    return question, f"{OPENING} {answer} {rng.choice(_CLOSINGS)}"


def _about_one(harbour, rng):
    for ways, answers in _ABOUT.values():
        for way in ways:
            yield _pair(way.format(**harbour), rng.choice(answers).format(**harbour), rng)
    for count, word in enumerate(["two", "three", "four", "five"], start=2):
        total = count * int(harbour["fare"])
        yield _pair(f"What do {word} tickets to {harbour['harbour']} cost?",
                    f"One ticket to {harbour['harbour']} is {harbour['fare']} crowns, so {word} are {total}.", rng)


def _about_two(one, two, rng):
    a, b = one["harbour"], two["harbour"]
    quick, cheap = (min((one, two), key=lambda h: int(h[key]))["harbour"] for key in ("minutes", "fare"))
    yield _pair(f"Which is quicker, the ferry to {a} or to {b}?",
                f"The ferry to {a} takes {one['minutes']} minutes and the one to {b} {two['minutes']}, so {quick} is quicker.", rng)
    yield _pair(f"Is it cheaper to go to {a} or to {b}?",
                f"{a} costs {one['fare']} crowns and {b} {two['fare']}, so {cheap} is cheaper.", rng)
    same = "the same pier" if one["pier"] == two["pier"] else "another pier"
    yield _pair(f"Do the boats to {a} and {b} leave from the same pier?",
                f"{a} has pier {one['pier']} and {b} pier {two['pier']}: {same}.", rng)


def pairs():
    """-> [(question, answer)] of all there is to ask, in a fixed order."""
    rng = random.Random(_SEED)
    places = harbours()
    result = [pair for place in places for pair in _about_one(place, rng)]
    for one in places:
        result += [pair for two in rng.sample(places, 8) if two is not one for pair in _about_two(one, two, rng)]
    rules = styles.read_rows("ferry_rules.tsv")
    result += [_pair(prefix + question, answer, rng) for question, answer in rules for prefix in ("", "Hello, Marlow. ", "Excuse me. ")]
    result += [_pair(question, f"That is off our route, but I know it. {english}", rng)
               for _, question, _, english, _ in styles.facts()]
    return result


def conversations(tokenizer, num_turns=4):
    """-> (to train on, held out): texts of the model's chat template, each of num_turns questions."""
    rng = random.Random(_SEED + 1)
    shuffled = pairs()
    rng.shuffle(shuffled)
    held_out = shuffled[::_HELD_OUT]
    asked = {question for question, _ in held_out}
    kept = [pair for pair in shuffled if pair[0] not in asked]

    def render(turns):
        messages = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)]
        return tokenizer.apply_chat_template(messages, tokenize=False)

    return tuple([render(group[i:i + num_turns]) for i in range(0, len(group) - num_turns + 1, num_turns)]
                 for group in (kept, held_out))
