#!/usr/bin/env python3
"""Writes tests/data/golden/chat/expected.json: what Jinja renders from the templates beside it.

Needs jinja2 (Debian: python3-jinja2). The environment is set as Hugging Face's apply_chat_template() sets it:
sandboxed, trim_blocks, lstrip_blocks, loop controls, the tag "generation", tojson without escapes, raise_exception.
The templates are those of published models, as far as their authors' documentation shows them.
"""
import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

folder = pathlib.Path(__file__).resolve().parent.parent / "tests/data/golden/chat"


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception

user = {"role": "user", "content": "What is thrift?"}
answer = {"role": "assistant", "content": "Using no more than is needed."}
system = {"role": "system", "content": "Answer in one line."}
padded = {"role": "user", "content": "  \n Grüße aus Köln,\t東京 \u00a0\n"}
thought = {"role": "assistant", "content": "<think>\nShort.\n</think>\n\nLess is more."}
weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, \"country\""},
                "days": {"type": "integer", "description": "How many"},
                "units": {"type": "array", "items": {"type": "string"}, "description": "Wanted units <°C>"},
            },
            "required": ["place"],
        },
    },
}
call = {
    "role": "assistant",
    "content": "Let me look.",
    "tool_calls": [
        {"id": "abcdef123", "type": "function",
         "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2, "share": 0.5, "exact": True}}}
    ],
}
result = {"role": "tool", "content": '{"sky": "grey"}', "tool_call_id": "abcdef123"}
conversations = {
    "user": {"messages": [user]},
    "system": {"messages": [system, user]},
    "turns": {"messages": [user, answer, padded, thought, user]},
    "answered": {"messages": [system, padded, thought], "add_generation_prompt": False},
    "out of turn": {"messages": [answer, user]},
    "no tokens": {"messages": [user, answer], "bos_token": None, "eos_token": None},
    "tools": {"messages": [system, user, call, result, answer, user], "tools": [weather]},
}

expected = {}
for path in sorted(folder.glob("*.jinja")):
    template = environment.from_string(path.read_text(encoding="utf-8"))
    rendered = expected[path.stem] = {}
    for name, conversation in conversations.items():
        variables = dict(add_generation_prompt=True, tools=None, documents=None, bos_token="<s>", eos_token="</s>")
        variables.update(conversation)
        variables = {key: value for key, value in variables.items() if key in ("tools", "documents") or value is not None}
        try:
            rendered[name] = template.render(**variables)
        except Exception as error:  # Python's own, too: None + 'text'
            rendered[name] = {"error": str(error)}
text = json.dumps({"conversations": conversations, "expected": expected}, ensure_ascii=False, indent=1)
(folder / "expected.json").write_text(text + "\n", encoding="utf-8")
