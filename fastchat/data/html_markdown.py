"""HTML as Markdown, for answers that were saved from a web page; pure.

`is_html` takes a text for HTML only where all of it is markup: `a < b`, Markdown with a tag
in it or code with HTML in it are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fastchat.data.html_tables import table_markdown
from fastchat.data.html_tree import BLOCKS, Element, parse_html

_DROPPED = frozenset({"button", "head", "noscript", "script", "style", "svg", "template", "title"})
_ENDS_WITH_TAG = re.compile(r"</[a-z][a-z0-9]*\s*>\s*\Z", re.IGNORECASE)
_PAGE = re.compile(
    r"\s*<div\s[^<>]*class\s*=\s*[\"'][^\"'<>]*\b(?:markdown|prose|whitespace-pre)", re.IGNORECASE
)
_MARKUP = re.compile(r"\s*<(?:blockquote|h[1-6]|ol|p|pre|table|ul)(?:\s[^<>]*)?>", re.IGNORECASE)
_MARKS = {
    **dict.fromkeys(("b", "strong"), "**"),
    **dict.fromkeys(("em", "i"), "*"),
    **dict.fromkeys(("del", "s", "strike"), "~~"),
}
_SPACE = re.compile(r"[ \t\r\n\f]+")
# A line break in running text, until its white space is in order; never a character of a text.
_BREAK = "\ufdd0"
_LANGUAGE = re.compile(r"(?:language|lang|highlight-source)-([\w+#.-]+)")


def is_html(text: str, *, answer: bool = True) -> bool:
    """Whether all of a text is markup of a saved page, and not text with HTML in it.

    It has to end with a closing tag and to begin with a `div` of a class that chat pages use
    ("markdown", "prose", "whitespace-pre-wrap"), or, in an answer, with a paragraph, heading,
    list, quote, table or `pre`. People paste HTML into questions; there that counts as text.
    """
    begins = _PAGE.match(text) or (answer and _MARKUP.match(text))
    return bool(begins) and _ENDS_WITH_TAG.search(text) is not None


def html_to_markdown(text: str) -> str:
    """A piece of HTML as Markdown: headings, paragraphs, lists, code, tables, links, emphasis.

    What has no form in Markdown is left as its text; scripts, styles and buttons are left out.
    """
    return "\n\n".join(_blocks(parse_html(text)))


def _blocks(parent: Element) -> list[str]:
    """The blocks of Markdown that an element's content makes, none of them empty."""
    found: list[str] = []
    run: list[Element | str] = []
    for child in parent.children:
        if isinstance(child, str) or not _holds_blocks(child):
            run.append(child)
        else:
            found += [_paragraph(run), *_block(child)]
            run = []
    found.append(_paragraph(run))
    return [block for block in found if block]


def _holds_blocks(element: Element) -> bool:
    if element.tag in _DROPPED:
        return False
    return element.tag in BLOCKS or any(each.tag in BLOCKS for each in element.elements())


def _block(element: Element) -> list[str]:
    make = _BLOCK_MAKERS.get(element.tag)
    if make is not None:
        return [make(element)]
    plain = not any(each.tag in BLOCKS for each in element.elements())
    if plain and any("whitespace-pre" in name for name in element.classes):
        return [element.text.strip("\n")]
    return _blocks(element)


def _heading(element: Element) -> str:
    text = _paragraph(element.children).replace("\n", " ")
    return f"{'#' * int(element.tag[1])} {text}" if text else ""


def _quote(element: Element) -> str:
    return "\n".join(f"> {line}".rstrip() for line in "\n\n".join(_blocks(element)).split("\n"))


def _code_block(element: Element) -> str:
    code = element.find("code") or element
    text = code.text.removeprefix("\n").removesuffix("\n")
    names = " ".join([*code.classes, *element.classes])
    language = _LANGUAGE.search(names)
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language[1] if language else ''}\n{text}\n{fence}"


def _list(element: Element) -> str:
    start = element.attributes.get("start", "")
    number = int(start) if re.fullmatch(r"[0-9]{1,9}", start) else 1
    items: list[str] = []
    for child in element.children:
        if isinstance(child, str) and not child.strip():
            continue
        marker = f"{number}. " if element.tag == "ol" else "- "
        indent = " " * len(marker)
        if isinstance(child, Element) and child.tag in ("ol", "ul") and items:
            # A list with no item around it belongs to the item before.
            items[-1] += "\n" + _indented(_list(child), indent)
            continue
        content = child.children if isinstance(child, Element) and child.tag == "li" else [child]
        body = _item(Element("li", children=content))
        items.append((marker + _indented(body, indent).lstrip(" ")).rstrip())
        number += 1
    return "\n".join(items)


def _item(element: Element) -> str:
    """An item's blocks: a list directly behind its text, anything else with a line between."""
    blocks = _blocks(element)
    holds_list = element.find("li") is not None
    text = blocks[0] if blocks else ""
    for block in blocks[1:]:
        is_list = holds_list and re.match(r"- |\d+\. ", block)
        text += ("\n" if is_list else "\n\n") + block
    return text


def _indented(text: str, by: str) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))


def _rule(_: Element) -> str:
    return "---"


def _table(element: Element) -> str:
    return table_markdown(element, lambda cell: _paragraph(cell.children).replace("\n", " "))


def _paragraph(parts: list[Element | str]) -> str:
    """Running text, its white space brought in order as a browser does."""
    text = _SPACE.sub(" ", "".join(map(_inline, parts)))
    return "\n".join(line.strip(" ") for line in text.split(_BREAK)).strip("\n")


def _inline(part: Element | str) -> str:
    if isinstance(part, str):
        return part.replace(_BREAK, "")
    if part.tag in _DROPPED:
        return ""
    if part.tag == "br":
        return _BREAK
    if part.tag == "code":
        return _inline_code(part.text)
    if part.tag == "img":
        return f"![{part.attributes.get('alt', '')}]({part.attributes.get('src', '')})"
    inner = "".join(map(_inline, part.children))
    if part.tag == "a":
        return _link(inner, part.attributes.get("href", ""))
    mark = _MARKS.get(part.tag)
    return _marked(inner, mark) if mark else inner


def _inline_code(text: str) -> str:
    text = _SPACE.sub(" ", text)
    if not text.strip():
        return text
    fence = "`" * (_longest_run(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def _link(inner: str, address: str) -> str:
    same = inner.strip() == address or not address or not inner.strip()
    return inner if same else f"[{inner}]({address})"


def _marked(inner: str, mark: str) -> str:
    """Emphasis, with the white space at its ends put outside, where Markdown needs it."""
    core = inner.strip(f" \t\r\n{_BREAK}")
    if not core:
        return inner
    before, _, after = inner.partition(core)
    return f"{before}{mark}{core}{mark}{after}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


_BLOCK_MAKERS: Mapping[str, Callable[[Element], str]] = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _heading),
    **dict.fromkeys(("ol", "ul"), _list),
    "blockquote": _quote,
    "hr": _rule,
    "pre": _code_block,
    "table": _table,
}
