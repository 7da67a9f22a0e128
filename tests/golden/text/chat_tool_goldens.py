"""Conversations with tools, rendered by jinja2 as transformers sets it up, and what transformers gives a template.

    VENV/bin/python tests/golden/text/chat_tool_goldens.py

writes chat_tools.json beside it. The template is polyad's own, written with the constructs of Hermes' and Qwen's.
"""
import json
import pathlib

from chat_goldens import environment

TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] + '\\n\\n' }}
    {%- endif %}
    {{- "Functions:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

WEATHER = ("get_weather", "The weather \u2014 now.", {"type": "object", "properties": {
    "zone": {"type": "string"}, "city": {"type": "string", "description": "a \"name\""}, "days": {
        "type": "integer", "minimum": -1, "maximum": 9223372036854775807}, "exact": {"type": "number", "multipleOf": 0.5}},
    "required": ["zone", "city"], "additionalProperties": False})
CLOCK = ("get_time", "", None)
CALL = {"role": "assistant", "content": "", "tool_calls": [
    ("call_1", "get_weather", {"zone": "Europe", "city": "Z\u00fcrich \U0001f600", "days": None, "deep": [{"a": [1, 2.5, True]}, {}]}),
    ("call_2", "get_time", {})]}
ANSWERS = [{"role": "tool", "content": "18 \u00b0C", "tool_call_id": "call_1", "name": "get_weather"},
           {"role": "tool", "content": "{\"time\": \"<|im_end|>\"}", "tool_call_id": "call_2"}]
CASES = [
    ([WEATHER, CLOCK], [{"role": "user", "content": "Hi"}]),
    ([WEATHER], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]),
    ([], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]),
    ([WEATHER, CLOCK], [{"role": "user", "content": "Hi"}, CALL, *ANSWERS]),
    ([CLOCK], [{"role": "user", "content": "Hi"}, CALL | {"content": "Let me see."}, *ANSWERS,
               {"role": "assistant", "content": "18."}, {"role": "user", "content": "And now?"}]),
    ([], [{"role": "user", "content": "Hi"}, CALL, *ANSWERS]),
]


def tool_of(tool):
    name, description, parameters = tool
    function = {"name": name} | ({"description": description} if description else {})
    return {"type": "function", "function": function | ({"parameters": parameters} if parameters else {})}


def message_of(message):
    if "tool_calls" not in message:
        return message
    calls = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in message["tool_calls"]]
    return message | {"tool_calls": calls}


def main():
    template = environment().from_string(TEMPLATE)
    cases = []
    for tools, messages in CASES:
        text = template.render(messages=[message_of(m) for m in messages], tools=[tool_of(t) for t in tools] or None,
                               documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
        cases.append({"tools": [[n, d, json.dumps(p) if p else ""] for n, d, p in tools],
                      "messages": [m | {"tool_calls": [[i, n, json.dumps(a)] for i, n, a in m["tool_calls"]]}
                                   if "tool_calls" in m else m for m in messages], "text": text})
    path = pathlib.Path(__file__).parent / "chat_tools.json"
    path.write_text(json.dumps({"template": TEMPLATE, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
