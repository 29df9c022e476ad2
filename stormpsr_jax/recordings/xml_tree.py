"""XML of labelling tools as a tree: without document types, so without entities of any kind."""

import dataclasses
import os
from xml.parsers import expat

MAX_DEPTH = 100


@dataclasses.dataclass
class Node:
    """An element of XML, with the line that it begins in."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list["Node"] = dataclasses.field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"line {self.line}: <{self.tag}>"

    def findall(self, tag: str) -> list["Node"]:
        """The children with a tag."""
        return [child for child in self.children if child.tag == tag]


def parse(text: str, path: str | os.PathLike) -> Node:
    """Returns the root of an XML text.

    Raises:
        ValueError: not XML, nested deeper than `MAX_DEPTH`, or it has a document type: no labelling
            tool writes one, and entities can be made to fill any memory or to read other files.
    """
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    open_nodes = [Node("", {}, 0)]
    # Text comes in pieces; added to one another each time, those of a long one would take hours.
    pieces: list[list[str]] = [[]]

    def refuse(*_: object) -> None:
        raise ValueError(
            f"{path}: line {parser.CurrentLineNumber}: has a document type (<!DOCTYPE …>), which "
            "is not read, as it may hold entities; remove it"
        )

    def start(tag: str, attributes: dict[str, str]) -> None:
        node = Node(tag, attributes, parser.CurrentLineNumber)
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
        pieces.append([])
        if len(open_nodes) > MAX_DEPTH:
            raise ValueError(
                f"{path}: line {node.line}: elements are nested deeper than {MAX_DEPTH}"
            )

    def end(_: str) -> None:
        open_nodes.pop().text = "".join(pieces.pop())

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda data: pieces[-1].append(data)
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise ValueError(f"{path}: line {error.lineno}: not XML ({what})") from error
    return open_nodes[0].children[0]
