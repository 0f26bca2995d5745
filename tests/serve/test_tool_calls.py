"""Tools: shown to the model, held to their schemas, found in its answers, and answered."""

from __future__ import annotations

import itertools
import json

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.echo import Script
from fastchat.protocol.openai_tools import FunctionDefinition
from fastchat.serve.openai.tool_calls import CallReader
from fastchat.serve.openai.tool_grammar import call_grammar

ASK = [{"role": "user", "content": "Weather in Rome?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "now", "description": "The time."}},
]
WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ro}\\"me"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
PIECES = ["a", "\n", "<tool_call>", "</tool_call>", "<tool", WEATHER, NOW, "{", '"', "}", "你"]


def read(pieces, names=("weather", "now")):
    """Everything that a reader tells of an answer that comes in pieces: text, and calls."""
    reader = CallReader(names)
    text, calls = "", {}
    for number, piece in enumerate(pieces):
        news = reader.feed(piece, last=number == len(pieces) - 1)
        text += news.text
        for call in news.calls:
            name, arguments = calls.get(call.position, (call.name, ""))
            calls[call.position] = name, arguments + call.arguments
    return text, list(calls.values())


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.integers(0, 200)))
def test_calls_are_found_however_the_answer_is_cut(answer, cuts):
    places = sorted({min(cut, len(answer)) for cut in cuts} | {0, len(answer)})
    pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
    text, calls = read([*pieces, ""])
    whole_text, whole_calls = read([answer])
    assert calls == whole_calls
    assert "".join(text.split()) == "".join(whole_text.split())


@given(st.text(alphabet='<>tool_cal/{}"n: \\', max_size=60))
def test_text_that_is_no_call_stays_as_it_is(text):
    assert read([text, ""]) == (text, [])


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        (WEATHER, "", [("weather", '{"city": "Ro}\\"me"}')]),
        (f"{NOW}\n{NOW}\n", "", [("now", "{}")] * 2),
        (f"Wait.\n{NOW}", "Wait.\n", [("now", "{}")]),
        (NOW[:-30], NOW[:-30], []),
        (NOW.replace("now", "never"), NOW.replace("now", "never"), []),
        (WEATHER[:57], "", [("weather", '{"city": "Ro')]),
    ],
)
def test_what_is_a_call_and_what_is_text(answer, text, calls):
    assert read([answer]) == (text, calls)


FUNCTIONS = [FunctionDefinition(name="weather", parameters=CITY), FunctionDefinition(name="now")]


def verdict(grammar, text):
    """Whether a grammar takes a text, as a whole; None for the beginning of one."""
    llguidance = pytest.importorskip("llguidance")

    class Bytes:
        def __init__(self):
            self.eos_token_id, self.bos_token_id, self.special_token_ids = 256, None, [256]
            self.tokens = [*(bytes([byte]) for byte in range(256)), b"<eod>"]

        def __call__(self, text):
            return list(text.encode() if isinstance(text, str) else text)

    tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    source = llguidance.LLMatcher.grammar_from_lark(grammar["text"])
    matcher = llguidance.LLMatcher(tokens, source)
    assert not matcher.get_error()
    taken = all(matcher.try_consume_tokens([byte]) == 1 for byte in text.encode())
    return (True if matcher.is_accepting() else None) if taken else False


@pytest.mark.parametrize(
    ("text", "free", "must", "one"),
    [
        ("", True, None, None),
        ("Hello <b> <tool", True, False, False),
        (WEATHER, True, True, True),
        (f"{WEATHER}\n{NOW}", True, True, False),
        (f"Wait.\n{NOW}", True, False, False),
        (NOW[:-3], None, None, None),
        (WEATHER.replace("city", "town"), False, False, False),
        (WEATHER.replace('"Ro}\\"me"', "7"), False, False, False),
        (WEATHER.replace("weather", "whether"), False, False, False),
    ],
)
def test_the_grammar_holds_a_model_to_its_tools(text, free, must, one):
    assert verdict(call_grammar(FUNCTIONS, several=True, must_call=False), text) is free
    assert verdict(call_grammar(FUNCTIONS, several=True, must_call=True), text) is must
    assert verdict(call_grammar(FUNCTIONS, several=False, must_call=True), text) is one


def test_text_of_a_schema_or_calls():
    grammar = call_grammar(FUNCTIONS, several=True, must_call=False, answer_schema=json.dumps(CITY))
    assert verdict(grammar, '{"city": "Rome"}') is True
    assert verdict(grammar, NOW) is True
    assert verdict(grammar, "Hello") is False


def says(stack, answer):
    stack.engine.script = Script(answer=lambda _: answer)


def ask(stack, **more):
    return stack.client.chat.completions.create(
        **{"model": "echo", "messages": ASK, "tools": TOOLS, **more}
    )


def test_calls_of_a_whole_answer(stack):
    says(stack, f"Let me see.\n{WEATHER}\n{NOW}")
    choice = ask(stack).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    names = [call.function.name for call in choice.message.tool_calls]
    assert names == ["weather", "now"]
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": 'Ro}"me'}
    ids = [call.id for call in choice.message.tool_calls]
    assert len(set(ids)) == 2
    assert all(name.startswith("call_") for name in ids)


def test_streamed_calls_are_the_same_calls(stack):
    says(stack, f"{WEATHER}\n{NOW}")
    whole = ask(stack).choices[0].message
    with stack.client.chat.completions.stream(model="echo", messages=ASK, tools=TOOLS) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert [(c.function.name, c.function.arguments) for c in streamed.message.tool_calls] == [
        (c.function.name, c.function.arguments) for c in whole.tool_calls
    ]
    assert not streamed.message.content


def test_an_answer_without_calls_is_an_answer(stack):
    says(stack, "Sunny. <tool>")
    choice = ask(stack).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Sunny. <tool>", "stop")
    assert choice.message.tool_calls is None


@pytest.mark.parametrize(
    ("choice", "shown", "kind", "finish"),
    [
        ("auto", ["weather", "now"], "ebnf", "tool_calls"),
        ("required", ["weather", "now"], "ebnf", "tool_calls"),
        ({"type": "function", "function": {"name": "now"}}, ["now"], "ebnf", "stop"),
    ],
)
def test_a_choice_decides_what_is_shown_and_allowed(stack, choice, shown, kind, finish):
    says(stack, NOW)
    answer = ask(stack, tool_choice=choice).choices[0]
    assert answer.finish_reason == finish
    assert answer.message.content is None
    request = stack.engine.requests[-1]
    prompt = bytes(token for token in request.prompt_ids if token < 256).decode()
    assert [name for name in ("weather", "now") if f'{{"name": "{name}"' in prompt] == shown
    assert prompt.endswith("Weather in Rome?")
    assert request.sampling.grammar.kind == kind


def test_no_tools_are_shown_where_none_may_be_called(stack):
    says(stack, NOW)
    answer = ask(stack, tool_choice="none").choices[0]
    assert (answer.message.content, answer.finish_reason) == (NOW, "stop")
    request = stack.engine.requests[-1]
    assert request.sampling.grammar is None
    assert b"weather" not in bytes(token for token in request.prompt_ids if token < 256)


def test_results_go_back_to_the_model(stack):
    stack.engine.script = Script()
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"c{number}",
                "type": "function",
                "function": {"name": "now", "arguments": "{}"},
            }
            for number in range(2)
        ],
    }
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": f"{n} h"} for n in range(2)]
    ask(stack, messages=[*ASK, called, *results])
    prompt = bytes(t for t in stack.engine.requests[-1].prompt_ids if t < 256).decode()
    told = prompt[prompt.index("Rome?") :]
    assert told == (
        f"Rome?<n>{NOW}\n{NOW}<n><tool_response>\n0 h\n</tool_response>\n"
        "<tool_response>\n1 h\n</tool_response>"
    )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"extra_body": {"guided_regex": "a"}}, "tools"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0]"),
    ],
)
def test_tools_that_make_no_sense_are_refused_by_name(stack, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(stack, **more)
    assert caught.value.param.startswith(param)
