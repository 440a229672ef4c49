"""Elements of a MusicXML file as the writer's modules make them: a child with text and attributes, in one call.

In come a parent, a tag, text and attributes; out comes the child. Text from a score is cleaned first of what XML can't
hold.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement


def add(parent: Element, tag: str, text: object = None, **attributes: str) -> Element:
    """A new child of `parent`, its last so far; no text where `text` is None."""
    child = SubElement(parent, tag, attributes)
    if text is not None:
        child.text = str(text)
    return child


def clean(text: str) -> str:
    """The text without the control characters that XML can't hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
