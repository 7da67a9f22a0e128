"""Templates and conversations for the chat template's tests, rendered by jinja2 as transformers sets it up.

The templates are polyad's own, written to use the constructs that the well-known models' templates use.
"""
import datetime
import json

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1795320000  # 2026-11-22 04:00 UTC

TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama2_like": """{% if messages[0]['role'] == 'system' %}
{% set loop_messages = messages[1:] %}
{% set system_message = messages[0]['content'] %}
{% else %}
{% set loop_messages = messages %}
{% set system_message = false %}
{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate') }}
    {% endif %}
    {% if loop.index0 == 0 and system_message != false %}
        {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' ' + content.strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}""",
    "llama3_like": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message goes first. -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools is not none and tools | length > 0 %}
    {{- tools[0] | tojson(indent=4) }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral_like": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
        {%- if message == user_messages[-1] %}{{- "(" ~ user_messages | length ~ ")" }}{%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
""",
    "qwen3_like": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "gemma_like": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% else %}{% set first = "" %}{% endif %}
{%- for message in messages if message.role != 'system' -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first if loop.first else "") }}
    {{- message['content'] | trim }}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}""",
    "macros": """{%- macro turn(role, content, end='<|end|>') -%}
<|{{ role | upper }}|>
{{ content if content else 'nothing' }}{{ end }}
{%- endmacro %}
{% for m in messages %}
  {{ turn(m.role, m.content) }}
  {%- if not loop.last %}{{ turn('sep', loop.index ~ '/' ~ loop.length, end='') }}{% endif %}

{% endfor %}
{% set tail %}
tail: {{ messages | map(attribute='role') | join(', ') }}
{% endset %}
{{ tail | trim | title }}
""",
    "blocks": """
{# a comment #}
  {% for m in messages %}
    {% if m.content | length > 40 %}{% continue %}{% endif %}
    [{{ loop.index }}:{{ loop.revindex0 }}{{ ' first' if loop.first }}] {{ m.role | capitalize }}: {{ m.content.replace('a', 'o') | replace("\\n", " / ") }}
    {%- if loop.previtem is defined %} after {{ loop.previtem.role }}{% endif %}
    {% if loop.index > 3 %}{% break %}{% endif %}
  {% else %}
    nobody
  {% endfor %}
  {%+ if true %}kept{% endif +%}

{{- "  x  " }}   {{ 'y' -}}

z
{%- set pairs = {'one': 1, "two": [2, 2.5], 'three': none} %}
{% for key, value in pairs.items() %}
{{ key }}={{ value | tojson }};
{% endfor %}
{{ pairs | tojson }} {{ pairs.two[-1] }} {{ pairs['missing'] is undefined }} {{ pairs.get('missing', 'd') }}
""",
    "values": """{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 1 }} {{ 1.5 + 2 }} {{ not 1 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }}
{{ [1, 2, 3][1:] | tojson }} {{ 'hello'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[-3:] }} {{ [1, 2, 3][::-1] | tojson }} {{ 'abc'[5:] }}|{{ 'abc'[-9:2] }}
{{ 'x' in 'xyz' }} {{ 'q' not in ['a'] }} {{ 3 in [1, 2, 3] }} {{ none }} {{ true and 'yes' or 'no' }} {{ 0 or 'zero' }} {{ undefined_thing | default('dflt') }}
{{ '' | default('empty', true) }} {{ [1, 2] | first }} {{ 'xyz' | last }} {{ [] | first is undefined }} {{ 5 is odd }} {{ 6 is divisibleby 3 }} {{ 'a' is string }}
{{ [1, 'a', none, true, {'k': 'v'}] | tojson }} {{ 'q"\\n\\u00e9\\t/<' | tojson }} {{ {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) }}
{{ 'a,b,,c'.split(',') | tojson }} {{ ' a  b '.split() | tojson }} {{ 'a,b,c'.split(',', 1) | tojson }} {{ 'one two'.title() }} {{ '-'.join(['a', 'b']) }}
{{ 'abc'.upper() ~ 1 ~ none ~ 2.0 }} {{ range(3) | list | tojson }} {{ range(5, 1, -2) | list | tojson }} {{ '%s' if false else "else" }} {{ ('a', 'b') | join('+') }}
{{ ['b', 'a'] | reverse | list | tojson }} {{ 'xx'.startswith(('a', 'x')) }} {{ '  t '.strip() }}|{{ 'xxtxx'.strip('x') }}|{{ '12' | int + 1 }} {{ '1.5' | float }} {{ -3 | abs }}
{{ [{'r': 1}, {'r': 2}, {}] | selectattr('r') | list | length }} {{ [{'r': 1}, {'r': 2}] | rejectattr('r', '==', 1) | map(attribute='r') | list | tojson }}
{{ ['a', 'B'] | map('upper') | join }} {{ [1, 2, 3, 4] | select('even') | list | tojson }} {{ 'line1\\nline2' | indent(2) }} {{ 'x' * 3 }} {{ [1] + [2] | tojson if false else 'k' }}
""",
    "json_and_taint": "{% for m in messages %}{{ {'role': m.role, 'content': m.content} | tojson }}<|im_end|>{{ m.content | upper }}<|im_start|>{{ m.content[:5] ~ '<|im_end|>' }}"
                      "{{ m.content.replace('x', '<|im_end|>') }}{{ (m.content ~ m.role).split('|') | join('<|im_end|>') }}{{ m | tojson }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
}

CONVERSATIONS = [
    [("user", "Hello!")],
    [("system", "Be brief."), ("user", "What is 2 + 2?")],
    [("user", "Hi"), ("assistant", "Hello, how can I help?"), ("user", "Tell me a joke about cats.\n")],
    [("system", "  You are kind. \n"), ("user", " spaces  around \n\n"), ("assistant", "<think>\nhm, 4\n</think>\n\nIt is 4."), ("user", "你好,世界 😀 e\u0301")],
    [("user", "code:\n```py\nfor i in range(10):\n    print(i)\n```"), ("assistant", "ok {{ not_a_variable }} {% if %}")],
    [("user", "'quotes' \"double\" \\ back\\n slash / \t tab \x01 control"), ("assistant", "a|b|c"), ("user", "")],
    [("user", "a" * 50), ("assistant", "aa"), ("user", "banana"), ("assistant", "x"), ("user", "yxz"), ("assistant", "end")],
    [("assistant", "I begin."), ("assistant", "Twice."), ("user", "No alternation")],
]


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise ValueError(message)

    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(fmt)
    return env




class Generation(Extension):
    """{% generation %} prints its body, as transformers' own extension does."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True)).set_lineno(line)


def render_cases(demo_template, tokenizer):
    env = environment()
    cases = []
    for name, source in list(TEMPLATES.items()) + [("smollm2", demo_template)]:
        template = env.from_string(source)
        renders = []
        for number, conversation in enumerate(CONVERSATIONS):
            messages = [dict(role=r, content=c) for r, c in conversation]
            variables = dict(messages=messages, tools=None, documents=None, add_generation_prompt=number % 3 != 2, bos_token="<s>", eos_token="</s>")
            if number % 4 == 1:
                variables["enable_thinking"] = False
            try:
                text = template.render(**variables)
            except ValueError as error:
                renders.append(dict(conversation=number, error=str(error)))
                continue
            renders.append(dict(conversation=number, text=text, ids=tokenizer.encode(text, add_special_tokens=False).ids if name in ("smollm2", "chatml", "qwen3_like") else None))
        cases.append(dict(name=name, source=source, renders=renders))
    return dict(now=NOW, conversations=CONVERSATIONS, cases=cases)
