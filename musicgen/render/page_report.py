"""The report (Markdown, `sampling.takes_report`) as HTML for the page: headings, lists and tables.

What a score says may stand in a report, so HTML, links and pictures in it stay the characters they are.
"""

from __future__ import annotations


def report_html(report: str) -> str:
    """HTML of Markdown; headings one level lower, for the page has a title of its own; tables in boxes that scroll."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.disable(["link", "image", "autolink", "reference"])
    # names may hold what is emphasis in Markdown; in an indented line, which is code, it is none
    lines = [line if line.startswith("    ") else line.replace("_", "\\_") for line in report.split("\n")]
    tokens = markdown.parse("\n".join(lines))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + 1, 6)}"
        elif token.type in ("th_open", "td_open") and token.attrs.pop("style", ""):
            token.attrSet("class", "number")  # a style attribute is against the page's policy
    html = markdown.renderer.render(tokens, markdown.options, {})
    return (
        str(html)
        .replace("<table>", '<div class="wide" tabindex="0" role="region" aria-label="Table"><table>')
        .replace("</table>", "</table></div>")
    )
