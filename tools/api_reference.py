#!/usr/bin/env python3
"""Writes docs/api.md, the reference of the gRPC API, from the comments of proto/polyad/v1.

  api_reference.py             write it
  api_reference.py --check     1 where the page is not what would be written, or something has no comment

Needs grpcio-tools (tests/e2e/python/requirements.txt).
"""
import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/api.md"
FILES = ("polyad/v1/inference.proto", "polyad/v1/adapter_admin.proto")
BEGIN = """# gRPC reference

Made from the comments of [proto/polyad/v1](../proto/polyad/v1) by `tools/api_reference.py`; a test holds the page to them. Fields without a default are 0, false, empty or absent. HTTP's reference is `/openapi.json` of a server.
"""
FIELD = descriptor_pb2.FieldDescriptorProto
# Numbers of a descriptor's own fields, which the paths of comments are made of.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, SERVICE_METHOD, MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF, ENUM_VALUE = 4, 5, 6, 2, 2, 3, 4, 8, 2


def descriptors():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "set")
        if protoc.main(["protoc", f"-I{ROOT / 'proto'}", "--include_source_info", f"--descriptor_set_out={path}", *FILES]) != 0:
            sys.exit("protoc failed")
        return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file


class File:
    """One file's comments, and what of it has none."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self._comments = {tuple(place.path): place.leading_comments or place.trailing_comments
                          for place in descriptor.source_code_info.location}
        self.lacking = []

    def comment(self, path, name, required=True):
        text = " ".join(self._comments.get(path, "").split())
        if required and not text:
            self.lacking.append(name)
        return text

    def opening(self):
        """What stands above `syntax`, path 12."""
        for place in self.descriptor.source_code_info.location:
            if tuple(place.path) == (12,):
                return " ".join(" ".join([*place.leading_detached_comments, place.leading_comments]).split())
        return ""


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def short(name):
    return name.removeprefix(".polyad.v1.").removeprefix(".")


def anchor(name):
    return short(name).lower().replace(".", "")


def link(name):
    return f"[{short(name)}](#{anchor(name)})" if name.startswith(".polyad.v1.") else f"`{short(name)}`"


def entries_of(message):
    return {nested.name: nested for nested in message.nested_type if nested.options.map_entry}


def type_of(field, message):
    if field.type in (FIELD.TYPE_MESSAGE, FIELD.TYPE_ENUM):
        entry = entries_of(message).get(field.type_name.rsplit(".", 1)[-1])
        if entry:
            return f"map of {type_of(entry.field[0], entry)} to {type_of(entry.field[1], entry)}"
        text = link(field.type_name)
    else:
        text = FIELD.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {text}" if field.label == FIELD.LABEL_REPEATED else text


def message_lines(file, message, path, name):
    lines = [f"### {name}", ""]
    if (text := file.comment(path, name, required=False)):
        lines += [text, ""]
    oneofs = {}
    if message.field:
        lines += ["| field | type | meaning |", "|---|---|---|"]
    for i, field in enumerate(message.field):
        text = file.comment((*path, MESSAGE_FIELD, i), f"{name}.{field.name}", required=not field.HasField("oneof_index"))
        if field.HasField("oneof_index") and not field.proto3_optional:
            group = message.oneof_decl[field.oneof_index].name
            if group not in oneofs:
                oneofs[group] = file.comment((*path, MESSAGE_ONEOF, field.oneof_index), f"{name}.{group}", required=False)
                if oneofs[group]:
                    lines.append(f"| *{group}* | one of these | {cell(oneofs[group])} |")
            text = f"(one of *{group}*) {text}".strip()
        optional = "optional " if field.proto3_optional else ""
        lines.append(f"| `{field.name}` = {field.number} | {optional}{type_of(field, message)} | {cell(text)} |")
    if not message.field:
        lines.append("No fields.")
    lines.append("")
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            lines += message_lines(file, nested, (*path, MESSAGE_NESTED, i), f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        lines += enum_lines(file, enum, (*path, MESSAGE_ENUM, i), f"{name}.{enum.name}")
    return lines


def enum_lines(file, enum, path, name):
    lines = [f"### {name}", ""]
    if (text := file.comment(path, name, required=False)):
        lines += [text, ""]
    lines += ["| value | meaning |", "|---|---|"]
    for i, value in enumerate(enum.value):
        text = file.comment((*path, ENUM_VALUE, i), f"{name}.{value.name}", required=False)
        lines.append(f"| `{value.name}` = {value.number} | {cell(text)} |")
    return [*lines, ""]


def file_lines(file):
    descriptor = file.descriptor
    lines = []
    for i, service in enumerate(descriptor.service):
        lines += [f"## {descriptor.package}.{service.name}", "", file.opening(), "", "| call | takes | gives | |", "|---|---|---|---|"]
        for j, method in enumerate(service.method):
            text = file.comment((FILE_SERVICE, i, SERVICE_METHOD, j), f"{service.name}.{method.name}")
            stream = "stream of " if method.server_streaming else ""
            lines.append(f"| `{method.name}` | {link(method.input_type)} | {stream}{link(method.output_type)} | {cell(text)} |")
        lines.append("")
    for i, message in enumerate(descriptor.message_type):
        lines += message_lines(file, message, (FILE_MESSAGE, i), message.name)
    for i, enum in enumerate(descriptor.enum_type):
        lines += enum_lines(file, enum, (FILE_ENUM, i), enum.name)
    return lines


def main():
    files = [File(descriptor) for descriptor in descriptors() if descriptor.name in FILES]
    text = "\n".join([BEGIN, *(line for file in files for line in file_lines(file))]).rstrip("\n") + "\n"
    lacking = [name for file in files for name in file.lacking]
    if lacking:
        print("no comment:", ", ".join(lacking))
    if "--check" not in sys.argv:
        PAGE.write_text(text)
        return 0
    if PAGE.read_text() != text:
        print(f"{PAGE}: not what tools/api_reference.py writes")
        return 1
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
