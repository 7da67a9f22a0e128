"""The blocks of a page of docs: what the comment above each says is to be done with it.

A block is indented by four spaces or fenced. A comment stands above it, with at most a blank line between, and is not shown:

  <!-- run [OLD=NEW ...] -->     bash; run in order with the page's others, in one shell, in a folder that looks like the
                                 repository's root, with `polyad` on the path; each OLD in it is replaced by NEW first. A server in
                                 the foreground (polyad serve, prometheus, nginx) is put behind, and waited for until it is ready
  <!-- prints -->                what the run before it prints; … stands for anything, a line of it alone for any lines
  <!-- file NAME -->             written there before the page goes on
  <!-- first: COMMAND -->        stands alone: a line that is run there and not shown
  <!-- not run: WHY -->          bash; read by bash and shellcheck, its flags and files are looked up. A test that it names is there
  <!-- form -->                  how a command is called: its flags are looked up
  <!-- json -->                  JSON; … stands for a number or a part of a string
  <!-- json tenants -->          also a tenants file, `json adapters` an adapters file, by check-config
  <!-- json METHOD PATH -->      also sent there, to the server that the page runs: 200
  <!-- yaml -->                  objects of Kubernetes
  <!-- text -->                  none of these: a formula, a picture
"""
import dataclasses
import pathlib
import re

COMMENT = re.compile(r"<!-- (run|prints|file|first:|not run:|form|json|yaml|text)(?: (.*?))? ?-->")


@dataclasses.dataclass
class Block:
    page: pathlib.Path
    line: int
    text: str
    kind: str = ""  # none where no comment says
    words: str = ""

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def dedent(lines):
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(line[4:] for line in lines) + "\n"


def blocks_of(page):
    """-> [Block] in order, `first:` comments among them with their command as text"""
    lines = page.read_text().splitlines()
    found, said, number = [], None, 0
    while number < len(lines):
        line, begin = lines[number], number
        above = lines[number - 1].strip() if number else ""
        if (comment := COMMENT.fullmatch(line.strip())):
            kind, words = comment.group(1).rstrip(":"), comment.group(2) or ""
            if kind == "first":
                found.append(Block(page, number + 1, words + "\n", kind))
            else:
                said = (kind, words)
            number += 1
            continue
        if line.startswith("```"):
            number = next(i for i in range(number + 1, len(lines)) if lines[i].startswith("```")) + 1
            text = "\n".join(lines[begin + 1:number - 1]) + "\n"
        elif line.startswith("    ") and line.strip() and (not above or above.startswith("#") or COMMENT.fullmatch(above)):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            text = dedent(lines[begin:number])
        else:
            if line.strip():
                assert said is None, f"{page.name}:{number + 1}: a comment without a block"
                # Markdown takes this for the paragraph's next words.
                assert not (line.startswith("    ") and above and not above.startswith(("-", "*", "|"))
                            and not re.match(r"\d+\.", above)), f"{page.name}:{number + 1}: indented below a paragraph"
            number += 1
            continue
        found.append(Block(page, begin + 1, text, *(said or ("", ""))))
        said = None
    return found
