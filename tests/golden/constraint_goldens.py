#!/usr/bin/env python3
"""What texts a schema or an expression takes, told by libraries that are not ours: jsonschema (draft 2020-12, with its
format checker) and Python's re (fullmatch, ASCII).

  constraint_goldens.py write          makes constraints/cases.json
  constraint_goldens.py check FILE     judges what `sample_constraints` drew: lines of {"case": i, "text": ..}

Needs jsonschema 4.x and nothing else.
A case of schemas is judged over a pool of instances. Its verdicts are "1" for a text that must be taken, "0" for one
that must not, and "." for a text that the schema allows and we need not write (docs/structured_output.md says what
those are): undeclared properties, properties out of order, numbers in forms that we do not use.
"""
import itertools
import json
import pathlib
import re
import sys

import jsonschema

OUT = pathlib.Path(__file__).resolve().parent / "constraints" / "cases.json"

POOL = [
    "null", "true", "false", "0", "1", "-1", "7", "42", "-17", "100", "99", "3.5", "-0.25", "0.1", "2.75", "1000000", '""', '"a"', '"b"', '"ab"',
    '"abc"', '"abcd"', '"Zoe"', '"red"', '"green"', '"é"', '"€uro"', '"😀😀"', '"a b"', '"x-1"', '"2024-02-29"', '"2023-12-31"',
    '"2023-02-30"', '"12:30:00Z"', '"2023-12-31T23:59:59Z"', '"192.168.0.1"', '"256.1.1.1"',
    '"123e4567-e89b-12d3-a456-426614174000"', '"me@example.com"', '"line\\n"', '"quote\\""', "[]", "[1]", "[1,2]",
    "[1,2,3]", "[1,2,3,4]", '["a"]', '["a","b"]', '["a",1]', '[1,"a"]', "[null]", "[[]]", "[[1],[2]]", "[true,false]", "{}",
    '{"a":1}', '{"a":"x"}', '{"a":null}', '{"b":true}', '{"a":1,"b":true}', '{"b":true,"a":1}', '{"a":1,"b":2}', '{"a":1,"c":3}', '{"c":3}',
    '{"a":1,"b":true,"c":3}', '{"a":{"a":1}}', '{"a":{"a":{"a":1}}}', '{"k":"x","n":1}', '{"k":"y","m":"s"}', '{"k":"x"}',
    '{"next":null}', '{"next":{"next":null}}', '{"next":{}}', '{"a":[1,2]}', '{"a":[]}', '{"name":"Zoe","age":42}',
    '{"name":"","age":42}', '{"name":"Zoe"}', '{"age":42}', '{"name":"Zoe","age":-1}',
]
VALUES = [json.loads(text) for text in POOL]


def integers():
    bounds = [-1000, -100, -17, -1, 0, 1, 7, 42, 99, 100, 101]
    for low, high in itertools.combinations(bounds, 2):
        yield {"type": "integer", "minimum": low, "maximum": high}
    for bound in bounds:
        yield {"type": "integer", "minimum": bound}
        yield {"type": "integer", "exclusiveMaximum": bound}


def numbers():
    for low, high in ((0, 1), (-0.5, 0.5), (0.1, 3.5), (-20, -0.2), (2.75, 100.5), (-1, 42)):
        yield {"type": "number", "minimum": low, "maximum": high}
        yield {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}
    yield {"type": "number", "minimum": 0.1}
    yield {"type": "number", "maximum": 3.5}
    yield {"type": "number"}
    yield {"type": "integer"}


def strings():
    yield {"type": "string"}
    for low in range(4):
        yield {"type": "string", "minLength": low}
        yield {"type": "string", "maxLength": low + 1}
        yield {"type": "string", "minLength": low, "maxLength": low + 1}
    for pattern in ("^a", "b$", "^ab$", "a", "^[a-z]+$", "^[A-Z][a-z]*$", "\\d", "^\\w{3}$", "^(red|green|blue)$", "^.$", "^[^a]*$", "\\n", "\"", "^a|d$",
                    "[^ -~]", "^x-\\d+$", "^$", "e{1,2}"):
        yield {"type": "string", "pattern": pattern}
        yield {"type": "string", "pattern": pattern, "minLength": 2, "maxLength": 4}
    for name in ("date", "date-time", "uuid", "email", "ipv4"):
        yield {"type": "string", "format": name}


def arrays():
    yield {"type": "array"}
    for items in ({"type": "integer"}, {"type": "string"}, {"type": ["integer", "string"]}, {"type": "null"}, {"type": "boolean"}, {"enum": [1, "a"]}):
        yield {"type": "array", "items": items}
        for low, high in ((0, 1), (1, 1), (1, 2), (2, 3), (0, 0), (3, 4)):
            yield {"type": "array", "items": items, "minItems": low, "maxItems": high}
    yield {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}
    yield {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}
    yield {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2}
    yield {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "integer"}, "minItems": 2}
    yield {"type": "array", "minItems": 2}


def objects():
    yield {"type": "object"}
    yield {"type": "object", "additionalProperties": {"type": "integer"}}
    yield {"type": "object", "additionalProperties": {"type": ["string", "null"]}, "minProperties": 1}
    yield {"type": "object", "additionalProperties": True, "maxProperties": 2}
    a, b, c = {"type": "integer"}, {"type": "boolean"}, {"type": "integer", "minimum": 2}
    for required in ([], ["a"], ["b"], ["a", "b"], ["c"], ["a", "b", "c"]):
        schema = {"type": "object", "properties": {"a": a, "b": b, "c": c}, "required": required}
        yield {**schema, "additionalProperties": False}
        yield schema
    yield {"type": "object", "properties": {"b": b}, "additionalProperties": a}
    yield {"type": "object", "properties": {"a": a}, "additionalProperties": True, "required": ["a"]}
    yield {"type": "object", "properties": {"a": {"type": "array", "items": a}}, "required": ["a"], "additionalProperties": False}
    yield {"type": "object", "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
           "required": ["name", "age"], "additionalProperties": False}
    yield {"type": "object", "required": ["a"], "properties": {}}


def combinations_of_schemas():
    yield {}
    yield True
    yield {"type": ["null", "boolean"]}
    yield {"type": ["string", "number", "array"]}
    yield {"enum": [1, "a", None, [1, 2], {"a": 1}, 3.5, True]}
    yield {"const": {"a": 1, "b": True}}
    yield {"enum": [1, "ab", "abcd", -17], "type": "string", "maxLength": 3}
    yield {"enum": [1, 42, 100], "type": "integer", "minimum": 2}
    yield {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}, {"type": "array", "maxItems": 0}]}
    yield {"anyOf": [{"type": "integer", "minimum": 40}, {"type": "integer", "maximum": 0}]}
    yield {"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 50}]}
    yield {"allOf": [{"$ref": "#/$defs/p"}, {"type": "object", "properties": {"b": {"type": "boolean"}}}], "$defs": {"p": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
    yield {"oneOf": [{"type": "integer"}, {"type": "string"}]}
    yield {"oneOf": [{"type": "object", "properties": {"k": {"const": "x"}, "n": {"type": "integer"}}, "required": ["k"], "additionalProperties": False},
                     {"type": "object", "properties": {"k": {"const": "y"}, "m": {"type": "string"}}, "required": ["k", "m"], "additionalProperties": False}]}
    yield {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ["next"], "additionalProperties": False}}}
    yield {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "integer"}]}}, "additionalProperties": False}
    yield {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "additionalProperties": False}
    for types in itertools.combinations(["null", "boolean", "integer", "string", "array", "object"], 2):
        yield {"type": list(types)}


PATTERNS = [
    "a", "ab", "a*", "a+", "a?", "a{2}", "a{2,}", "a{1,3}", "(ab)*", "(a|b)*", "a|b|ab", "(a|ab)(c|bcd)", "[abc]+", "[^abc]+", "[a-c1-3]*", ".", ".*", ".+b",
    "\\d+", "\\d{4}-\\d{2}", "\\w+", "\\W+", "\\s*", "\\S+", "[\\d.]+", "[\\w-]+", "-?\\d+(\\.\\d+)?", "(-?(0|[1-9]\\d*))", "[A-Z][a-z]+( [A-Z][a-z]+)*", "^abc$",
    "(?:ab|cd){2}", "(?P<x>a)b", "a*?b", "[]a]+", "[^]a]+", "[a\\-z]+", "\\.", "\\*+", "\\\\", "\\x41+", "\\u00e9", "[\\u0080-\\uffff]+", "é+", "[é€]", "(a*)*b", "(a+)+",
    "((a|b)c?){2,3}", "a{0}", "a{0,1}b", "x{2}y{2}", "(0|1(01*0)*1)+", "(a|b)*abb", "[ab]*a[ab]{3}", "a.c", "a\\nb", "[\\n\\t ]+", "(\\(\\d\\) )?\\d{3}", "#[0-9a-f]{6}", "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
    "yes|no|maybe", "(yes|no)?", "|a", "a||b", "(|a)b", "[+-]?[0-9]+", "0x[0-9A-Fa-f]+", "[a-z]+@[a-z]+\\.(com|org)", "\\+?\\d[\\d ]*", "(ha){2,}!", "{a}", "a{,2}", "a{x}", "[.]{3}", "[$^]+", "a-b|c_d", "\\$\\d+",
]
TEXTS = ["", "a", "b", "c", "ab", "ba", "aa", "aaa", "aaaa", "abc", "abcd", "abab", "cdab", "abb", "aabb", "babb", "aabab", "abaaa", "acd", "abcbcd", "1", "12", "123", "2024-02", "2024-2", "-1",
         "-1.5", "1.", "01", "0", "00", "+12", "x", "xx", "xxyy", "Zoe", "Zoe Bar", "zoe", "Zoe bar", " ", "\t\n", "a b", "a\nb", "a.c", "...", "*", "**", "\\", "A", "AA", "é", "éé", "€", "日本", "]", "]a",
         "^$", "a-z", "#00ff7f", "#00FF7F", "192.168.0.1", "1.2.3", "yes", "no", "maybe", "yesno", "0x1F", "0x", "me@host.org", "me@host.net", "(1) 234", "234", "hahaha!", "ha!", "{a}", "a{x}", "$5", "c_d", "101", "110", "x-1", "a1", "_", "-"]


def schemas():
    for group in (integers, numbers, strings, arrays, objects, combinations_of_schemas):
        yield from group()


def judge(schema):
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def resolve(schema, root):
    while isinstance(schema, dict) and "$ref" in schema:
        target = root
        for key in schema["$ref"].split("/")[1:]:
            target = target[key]
        schema = target
    return schema


def must_write(schema, value, root):
    """Whether a valid value is in the part of its schema that we write."""
    schema = resolve(schema, root)
    if not isinstance(schema, dict):
        return True
    parts = schema.get("anyOf", schema.get("oneOf"))
    if parts is not None and "properties" not in schema:
        return any(judge({**part, "$defs": root.get("$defs", {})} if isinstance(part, dict) and "$ref" not in part else resolve(part, root)).is_valid(value) and must_write(part, value, root)
                   for part in parts if "#" not in json.dumps(part)) or (any("#" in json.dumps(part) for part in parts) and False)
    if "allOf" in schema:
        return False
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if listed is not None:
        return json.dumps(value) in [json.dumps(one) for one in listed]
    if isinstance(value, str):  # Python's $ lets a line break follow; a leap day is a date that we leave out
        return not value.endswith("\n") and value != "2024-02-29"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties", not properties)
        names = list(value)
        order = [name for name in properties if name in value] + [name for name in names if name not in properties]
        if "required" in schema:
            order = [n for n in properties if n in value] + [n for n in schema["required"] if n not in properties and n in value]
            order += [n for n in names if n not in order]
        if names != order or (extra is False and any(n not in properties and n not in schema.get("required", []) for n in names)):
            return False
        return all(must_write(properties.get(n, extra), value[n], root) for n in names)
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        rest = schema.get("items", not prefix or schema.get("minItems", 0) > len(prefix))
        if len(value) > len(prefix) and rest is False:
            return False
        return all(must_write(prefix[i] if i < len(prefix) else rest, v, root) for i, v in enumerate(value))
    return True


def verdicts(schema):
    validator = judge(schema)
    out = ""
    for value in VALUES:
        out += "0" if not validator.is_valid(value) else "1" if must_write(schema, value, schema) else "."
    return out


def write():
    cases = {"pool": POOL, "texts": TEXTS, "schemas": [], "patterns": []}
    for schema in schemas():
        cases["schemas"].append([schema, verdicts(schema)])
    for pattern in PATTERNS:
        compiled = re.compile(pattern, re.ASCII)
        cases["patterns"].append([pattern, "".join("1" if compiled.fullmatch(text) else "0" for text in TEXTS)])
    OUT.parent.mkdir(exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in cases["schemas"]]
    rows = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in cases["patterns"]]
    OUT.write_text('{"pool":%s,\n"texts":%s,\n"schemas":[\n%s\n],\n"patterns":[\n%s\n]}\n' % (
        json.dumps(POOL, ensure_ascii=False), json.dumps(TEXTS, ensure_ascii=False), ",\n".join(lines), ",\n".join(rows)))
    ones = sum(v.count("1") for _, v in cases["schemas"])
    dots = sum(v.count(".") for _, v in cases["schemas"])
    print(f"{len(cases['schemas'])} schemas ({ones} texts to take, {dots} left open), {len(cases['patterns'])} patterns, {OUT.stat().st_size} bytes")


def check(path):
    cases = json.loads(OUT.read_text())
    validators = [judge(schema) for schema, _ in cases["schemas"]]
    patterns = [re.compile(pattern, re.ASCII) for pattern, _ in cases["patterns"]]
    seen, bad, total = set(), 0, 0
    for line in pathlib.Path(path).read_text().split("\n"):
        if not line:
            continue
        row = json.loads(line)
        total += 1
        seen.add(row["case"])
        if row["case"] < len(validators):
            try:
                valid = validators[row["case"]].is_valid(json.loads(row["text"]))
            except ValueError:
                valid = False
        else:
            valid = patterns[row["case"] - len(validators)].fullmatch(row["text"]) is not None
        if not valid:
            bad += 1
            print("invalid:", row)
    print(f"{total} texts of {len(seen)} of {len(validators) + len(patterns)} cases: {bad} invalid")
    return 1 if bad or len(seen) < 300 else 0


if __name__ == "__main__":
    sys.exit(check(sys.argv[2]) if sys.argv[1:2] == ["check"] else write())
