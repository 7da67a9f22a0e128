"""OpenAI's own Python client against polyad on the demo model: completions, chat, streams, forms, embeddings, errors."""
import asyncio
import json
import math

import openai
import pydantic
import pytest

ASK = [{"role": "user", "content": "Say hello."}]


def complete(client, **more):
    return client.completions.create(**{"model": "smollm2", "prompt": "The sky is", "max_tokens": 8, "temperature": 0} | more)


def chat(client, **more):
    return client.chat.completions.create(
        **{"model": "smollm2", "messages": ASK, "max_tokens": 8, "temperature": 0} | more)


def embed(client, text, **more):
    return client.embeddings.create(**{"model": "smollm2", "input": text} | more)


# ---- models ----

def test_models_are_listed_with_the_base_first(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["smollm2", "pirate"]
    assert all(model.object == "model" for model in models)


def test_an_adapters_parent_is_the_base(client):
    assert client.models.retrieve("pirate").parent == "smollm2"
    assert client.models.retrieve("smollm2").parent is None


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_models_can_be_iterated_as_a_page(client):
    assert len(list(client.models.list())) == 2


# ---- completions ----

def test_a_completion_has_text_and_usage(client):
    answer = complete(client)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.choices[0].text and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_greedy_is_the_same_twice(client):
    assert complete(client).choices[0].text == complete(client).choices[0].text


def test_a_seed_repeats_itself(client):
    texts = {complete(client, temperature=1, seed=7).choices[0].text for _ in range(2)}
    assert len(texts) == 1


def test_n_gives_n_choices(client):
    answer = complete(client, n=3, temperature=1, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert 3 <= answer.usage.completion_tokens <= 24


def test_a_stop_string_ends_the_text_and_is_left_out(client):
    whole = complete(client, max_tokens=16).choices[0].text
    stop = whole[4:7]
    answer = complete(client, max_tokens=16, stop=stop)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == whole[:whole.index(stop)]


def test_several_stop_strings(client):
    assert complete(client, stop=["never in it", "nor this"]).choices[0].finish_reason == "length"


def test_echo_begins_with_the_prompt(client):
    assert complete(client, echo=True).choices[0].text.startswith("The sky is")


def test_logprobs_are_of_the_tokens(client):
    logprobs = complete(client, logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 8
    assert all(value <= 0 for value in logprobs.token_logprobs)
    assert all(1 <= len(top) <= 2 for top in logprobs.top_logprobs)


def test_a_prompt_is_scored_without_generating(client):
    answer = complete(client, echo=True, logprobs=1, max_tokens=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "The sky is" and answer.usage.completion_tokens == 0
    assert logprobs.token_logprobs[0] is None and len(logprobs.tokens) == answer.usage.prompt_tokens


def test_token_ids_are_a_prompt(client, server):
    ids = client.post("../tokenize", cast_to=object, body={"prompt": "The sky is"})["tokens"]
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text


def test_detokenize_gives_the_text_back(client):
    ids = client.post("../tokenize", cast_to=object, body={"prompt": "Bonjour, le monde!"})
    assert ids["count"] == len(ids["tokens"])
    assert client.post("../detokenize", cast_to=object, body={"tokens": ids["tokens"]})["prompt"] == "Bonjour, le monde!"


def test_logit_bias_rules_the_choice(client):
    token = client.post("../tokenize", cast_to=object, body={"prompt": "!"})["tokens"][-1]
    assert complete(client, logit_bias={str(token): 100}, max_tokens=4).choices[0].text == "!!!!"


def test_penalties_are_taken(client):
    assert complete(client, presence_penalty=2, frequency_penalty=-2).choices[0].text


def test_vllms_fields_go_through_extra_body(client):
    answer = complete(client, temperature=1, extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0})
    assert answer.choices[0].text == complete(client).choices[0].text


def test_an_adapter_is_a_model(client):
    answer = complete(client, model="pirate", max_tokens=16)
    assert answer.model == "pirate"
    assert answer.choices[0].text != complete(client, max_tokens=16).choices[0].text


def test_a_stream_is_the_whole_text(client):
    pieces = [chunk.choices[0].text for chunk in complete(client, stream=True)]
    assert "".join(pieces) == complete(client).choices[0].text and len(pieces) > 4


def test_a_streams_usage_comes_last(client):
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_of_two_choices(client):
    texts = ["", ""]
    for chunk in complete(client, stream=True, n=2, temperature=1, seed=3):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    whole = complete(client, n=2, temperature=1, seed=3)
    assert texts == [choice.text for choice in whole.choices]


def test_a_stream_can_be_left(client):
    with complete(client, stream=True, max_tokens=500) as stream:
        next(iter(stream))
    assert complete(client).choices[0].text


# ---- chat ----

def test_a_chat_answers(client):
    answer = chat(client)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None


def test_a_system_message_counts(client):
    system = [{"role": "system", "content": "You are a pirate."}, *ASK]
    assert chat(client, messages=system).usage.prompt_tokens != chat(client).usage.prompt_tokens


def test_content_parts_are_one_text(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]}]
    assert chat(client, messages=parts).choices[0].message.content == chat(client).choices[0].message.content


def test_a_conversation_goes_on(client):
    first = chat(client).choices[0].message
    again = [*ASK, first.model_dump(), {"role": "user", "content": "Again."}]
    assert chat(client, messages=again).choices[0].message.content


def test_max_completion_tokens_is_max_tokens(client):
    answer = client.chat.completions.create(model="smollm2", messages=ASK, max_completion_tokens=3)
    assert answer.usage.completion_tokens <= 3


def test_chat_logprobs(client):
    content = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == 8 and all(len(token.top_logprobs) == 2 for token in content)
    assert all(math.exp(token.logprob) <= 1 for token in content)
    assert bytes(content[0].bytes).decode() == content[0].token


def test_chat_stop_list(client):
    assert chat(client, stop=["e", "a", "i", "o"], max_tokens=32).choices[0].finish_reason == "stop"


def test_chat_n(client):
    assert len(chat(client, n=2, temperature=1, seed=5).choices) == 2


def test_a_chat_streams_deltas(client):
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat(client).choices[0].message.content
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_the_clients_own_accumulator_agrees(client):
    with client.chat.completions.stream(model="smollm2", messages=ASK, max_tokens=20,
                                        extra_body={"guided_choice": ["hello to you"]}) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "hello to you"


def test_an_adapter_chats(client):
    assert chat(client, model="pirate").model == "pirate"


def test_unused_bookkeeping_is_accepted(client):
    assert chat(client, user="somebody", metadata={"a": "b"}, service_tier="auto", store=False).choices


def test_raw_responses_have_headers(client):
    raw = client.chat.completions.with_raw_response.create(model="smollm2", messages=ASK, max_tokens=2)
    assert raw.headers["content-type"] == "application/json" and raw.parse().choices


def test_streaming_responses_can_be_read_as_lines(client):
    with client.chat.completions.with_streaming_response.create(
            model="smollm2", messages=ASK, max_tokens=4, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


# ---- forms ----

def test_json_object(client):
    end = client.post("../tokenize", cast_to=object, body={"prompt": "}"})["tokens"][-1]
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=50, logit_bias={str(end): 100})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_json_schema(client):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
              "required": ["city", "sunny"], "additionalProperties": False}
    answer = chat(client, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
                  max_tokens=60)
    value = json.loads(answer.choices[0].message.content)
    assert value["city"] in ("Paris", "Rome") and isinstance(value["sunny"], bool)
    assert answer.choices[0].finish_reason == "stop"


def test_the_clients_parse_helper(client):
    class Answer(pydantic.BaseModel):
        yes: bool
        count: int = pydantic.Field(ge=0, le=9)

    answer = client.chat.completions.parse(model="smollm2", messages=ASK, response_format=Answer, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, Answer)


def test_a_streamed_schema(client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    chunks = chat(client, stream=True, max_tokens=40,
                  response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
    assert isinstance(json.loads("".join(chunk.choices[0].delta.content or "" for chunk in chunks))["a"], bool)


def test_text_is_a_format(client):
    assert chat(client, response_format={"type": "text"}).choices[0].message.content


def test_a_choice_through_extra_body(client):
    answer = chat(client, extra_body={"guided_choice": ["north", "south"]}, temperature=1)
    assert answer.choices[0].message.content in ("north", "south")


def test_a_regex_through_extra_body(client):
    answer = chat(client, extra_body={"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}}, temperature=1, max_tokens=20)
    text = answer.choices[0].message.content
    assert len(text) == 8 and text[3] == "-" and (text[:3] + text[4:]).isdigit()


def test_a_schema_that_is_not_served_is_refused(client):
    with pytest.raises(openai.BadRequestError):
        chat(client, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "thing"}}})


# ---- embeddings ----

def test_an_embedding_is_a_direction(client):
    answer = embed(client, "hello")
    vector = answer.data[0].embedding
    assert len(vector) == 576 and abs(sum(value * value for value in vector) - 1) < 1e-5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_numbers_and_base64_are_the_same_embedding(client):
    assert embed(client, "hello").data[0].embedding == pytest.approx(
        embed(client, "hello", encoding_format="float").data[0].embedding, abs=1e-7)


def test_inputs_are_embedded_in_order_as_alone(client):
    texts = ["one", "two words", "three more words", "four"] * 6
    together = embed(client, texts).data
    assert [item.index for item in together] == list(range(24))
    assert together[2].embedding == embed(client, texts[2]).data[0].embedding == together[6].embedding


def test_token_ids_are_embedded(client):
    ids = client.post("../tokenize", cast_to=object, body={"prompt": "hello"})["tokens"]
    assert embed(client, [ids, ids]).data[1].embedding == embed(client, "hello").data[0].embedding
    assert embed(client, ids).data[0].embedding == embed(client, "hello").data[0].embedding


def test_dimensions_are_the_first_ones(client):
    short, whole = embed(client, "hello", dimensions=32).data[0].embedding, embed(client, "hello").data[0].embedding
    length = math.sqrt(sum(value * value for value in whole[:32]))
    assert short == pytest.approx([value / length for value in whole[:32]], abs=1e-6)


def test_more_dimensions_than_there_are_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        embed(client, "hello", dimensions=577)
    assert refused.value.param == "dimensions"


def test_pooling_is_a_choice(client):
    mean = embed(client, "hello there", extra_body={"pooling": "mean"}).data[0].embedding
    assert mean != embed(client, "hello there").data[0].embedding


def test_adapters_embed_in_their_own_way(client):
    assert embed(client, "hello", model="pirate").data[0].embedding != embed(client, "hello").data[0].embedding


def test_similar_texts_are_closer(client):
    a, b, c = (item.embedding for item in embed(
        client, ["The cat sits on the mat.", "A cat is sitting on a mat.", "Interest rates rose by two percent."],
        extra_body={"pooling": "mean"}).data)
    dot = lambda x, y: sum(p * q for p, q in zip(x, y))  # noqa: E731
    assert dot(a, b) > dot(a, c)


# ---- errors ----

@pytest.mark.parametrize("field, value", [
    ("temperature", 1000), ("temperature", -1), ("top_p", 0), ("top_p", 1.5), ("n", 0), ("n", 17),
    ("presence_penalty", 3), ("frequency_penalty", -3), ("max_tokens", -1), ("logprobs", 21), ("stop", [""]),
    ("logit_bias", {"5": 200}), ("logit_bias", {"49152": 1}), ("temperature", "hot"), ("stream", "yes")])
def test_a_field_out_of_range_is_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, **{field: value})
    assert refused.value.param == field and refused.value.type == "invalid_request_error"


def test_an_unknown_adapter_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        complete(client, model="nobody")


def test_an_unknown_field_is_refused(client):
    with pytest.raises(openai.BadRequestError):
        complete(client, extra_body={"no_such_field": 1})


def test_no_messages_are_refused(client):
    with pytest.raises(openai.BadRequestError):
        chat(client, messages=[])


def test_a_prompt_beyond_the_context_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, prompt="word " * 20000)
    assert "tokens" in str(refused.value)


def test_a_client_that_does_not_wait_is_no_harm(client):
    with pytest.raises(openai.APITimeoutError):
        complete(client.with_options(timeout=0.05), max_tokens=2000, extra_body={"ignore_eos": True})
    assert complete(client).choices[0].text


# ---- async ----

def test_async_completions_run_together(asynchronous, client):
    async def run():
        return await asyncio.gather(*(complete(asynchronous) for _ in range(8)))

    assert {answer.choices[0].text for answer in asyncio.run(run())} == {complete(client).choices[0].text}


def test_async_chat(asynchronous):
    async def run():
        return await chat(asynchronous)

    assert asyncio.run(run()).choices[0].message.content


def test_async_streams(asynchronous, client):
    async def run():
        return "".join([chunk.choices[0].delta.content or "" async for chunk in await chat(asynchronous, stream=True)])

    assert asyncio.run(run()) == chat(client).choices[0].message.content


def test_async_streams_mix_base_and_adapter(asynchronous):
    async def one(model):
        return "".join([chunk.choices[0].text async for chunk in await complete(asynchronous, model=model, stream=True)])

    async def run():
        return await asyncio.gather(*(one(model) for model in ["smollm2", "pirate"] * 4))

    texts = asyncio.run(run())
    assert len(set(texts[0::2])) == 1 and len(set(texts[1::2])) == 1


def test_async_embeddings(asynchronous):
    async def run():
        return await asyncio.gather(*(embed(asynchronous, ["a", "b"]) for _ in range(4)))

    assert all(len(answer.data) == 2 for answer in asyncio.run(run()))


def test_async_models(asynchronous):
    async def run():
        return [model.id async for model in asynchronous.models.list()]

    assert asyncio.run(run()) == ["smollm2", "pirate"]


def test_an_async_task_can_be_cancelled(asynchronous, client):
    async def run():
        task = asyncio.create_task(complete(asynchronous, max_tokens=2000, extra_body={"ignore_eos": True}))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert complete(client).choices[0].text


def test_async_errors_are_the_same(asynchronous):
    async def run():
        with pytest.raises(openai.NotFoundError):
            await complete(asynchronous, model="nobody")

    asyncio.run(run())
