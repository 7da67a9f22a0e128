"""OpenAI's own Python client calling tools on the demo model, whose template knows none: polyad writes them into it."""
import asyncio
import json

import openai
import pytest

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12},
                                                    "unit": {"enum": ["celsius", "fahrenheit"]}},
                   "required": ["city", "unit"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


def ask(client, **more):
    return client.chat.completions.create(
        **{"model": "smollm2", "messages": ASK, "tools": [WEATHER, CLOCK], "max_tokens": 120, "temperature": 0} | more)


def check_weather(call):
    assert call.type == "function" and call.id and call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit")


def named(name):
    return {"type": "function", "function": {"name": name}}


def gather(stream):
    """-> (content, calls by index, the finish reason)"""
    content, calls, reason = "", {}, None
    for chunk in stream:
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        for call in choice.delta.tool_calls or []:
            entry = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
            entry["id"] += call.id or ""
            entry["name"] += call.function.name or ""
            entry["arguments"] += call.function.arguments or ""
        reason = choice.finish_reason or reason
    return content, calls, reason


def test_auto_answers_or_calls(client):
    message = ask(client, max_tokens=40).choices[0].message
    assert message.content or message.tool_calls


def test_none_is_as_without_tools(client):
    without = client.chat.completions.create(model="smollm2", messages=ASK, max_tokens=12, temperature=0)
    answer = ask(client, tool_choice="none", max_tokens=12)
    assert answer.choices[0].message.content == without.choices[0].message.content
    assert answer.usage.prompt_tokens == without.usage.prompt_tokens


def test_the_tools_are_in_the_prompt(client):
    assert ask(client, max_tokens=1).usage.prompt_tokens > ask(client, tools=[CLOCK], max_tokens=1).usage.prompt_tokens


def test_a_named_tool_is_called_once(client):
    answer = ask(client, tool_choice=named("get_weather"))
    assert answer.choices[0].finish_reason == "tool_calls" and answer.choices[0].message.content is None
    assert len(answer.choices[0].message.tool_calls) == 1
    check_weather(answer.choices[0].message.tool_calls[0])


def test_a_tool_without_parameters_has_no_arguments(client):
    call = ask(client, tool_choice=named("get_time")).choices[0].message.tool_calls[0]
    assert call.function.name == "get_time" and json.loads(call.function.arguments) == {}


def test_required_calls_some_tool(client):
    calls = ask(client, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls
    assert len(calls) == 1 and calls[0].function.name in ("get_weather", "get_time")


def test_required_may_call_several(client):
    answer = ask(client, tool_choice="required", temperature=1, seed=2, max_tokens=200)
    calls = answer.choices[0].message.tool_calls
    assert calls and len({call.id for call in calls}) == len(calls)
    for call in calls:
        json.loads(call.function.arguments)


@pytest.mark.parametrize("seed", range(4))
def test_forced_arguments_keep_to_their_schema_at_any_temperature(client, seed):
    answer = ask(client, tool_choice=named("get_weather"), temperature=2, seed=seed, n=2)
    for choice in answer.choices:
        check_weather(choice.message.tool_calls[0])


def test_a_streamed_call_is_the_whole_one(client):
    whole = ask(client, tool_choice=named("get_weather")).choices[0].message.tool_calls[0].function
    content, calls, reason = gather(ask(client, tool_choice=named("get_weather"), stream=True))
    assert content == "" and reason == "tool_calls" and list(calls) == [0] and calls[0]["id"]
    assert (calls[0]["name"], calls[0]["arguments"]) == (whole.name, whole.arguments)


def test_a_streamed_answer_without_calls_is_the_whole_one(client):
    whole = ask(client, max_tokens=24).choices[0].message
    content, calls, _ = gather(ask(client, max_tokens=24, stream=True))
    assert content == (whole.content or "") and len(calls) == len(whole.tool_calls or [])


def test_the_clients_own_accumulator_sees_the_call(client):
    with client.chat.completions.stream(model="smollm2", messages=ASK, tools=[WEATHER], max_tokens=120,
                                        tool_choice=named("get_weather"), temperature=0) as stream:
        for _ in stream:
            pass
        check_weather(stream.get_final_completion().choices[0].message.tool_calls[0])


def test_calls_and_answers_are_history(client):
    call = ask(client, tool_choice=named("get_weather")).choices[0].message
    history = [*ASK, call.model_dump(), {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "18 degrees"}]
    answer = ask(client, messages=history, tool_choice="none", max_tokens=12)
    assert answer.choices[0].message.content
    shorter = ask(client, messages=history[:1], tool_choice="none", max_tokens=12)
    assert answer.usage.prompt_tokens > shorter.usage.prompt_tokens + 20


def test_adapters_call_tools(client):
    check_weather(ask(client, model="pirate", tool_choice=named("get_weather")).choices[0].message.tool_calls[0])


def test_logprobs_come_beside_calls(client):
    answer = ask(client, tool_choice=named("get_time"), logprobs=True)
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens


def test_a_call_cut_short_is_said_to_be(client):
    choice = ask(client, tool_choice=named("get_weather"), max_tokens=3).choices[0]
    assert choice.finish_reason == "length" and not choice.message.tool_calls


def test_async_tools(asynchronous):
    async def run():
        return await asyncio.gather(*(ask(asynchronous, tool_choice=named("get_weather")) for _ in range(4)))

    for answer in asyncio.run(run()):
        check_weather(answer.choices[0].message.tool_calls[0])


@pytest.mark.parametrize("more, param", [
    ({"tool_choice": "required", "tools": []}, "tool_choice"),
    ({"tool_choice": named("no_such_tool")}, "name"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [{"type": "retrieval"}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
    ({"tools": [CLOCK, CLOCK]}, "name"),
    ({"tools": [CLOCK] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, "parameters"),
    ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {
        "name": "a", "arguments": "not json"}}]}]}, "arguments"),
])
def test_what_is_refused_is_named(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **more)
    assert refused.value.param == param
