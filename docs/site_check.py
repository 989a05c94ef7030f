"""Check the pages of the built site: ``make site`` calls it last.

Every link, picture, style and script leads to a file of the site, and to an anchor that is there.
No page loads anything from another host, and no page shows raw markup.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent.parent / "site"
RAW = re.compile(r":(?:class|func|meth|mod|data|attr):|^:::|```|\]\([\w./#-]+\)|\|---", re.M)
"""What a reader must not see outside code: roles, fences, links and tables as they are written."""
LOADING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What one page links to, loads and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self._hidden = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element links to or loads, and its anchor."""
        found = {key: value or "" for key, value in attrs}
        self.anchors.update(found[key] for key in ("id", "name") if key in found)
        if tag in LOADING and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(found.get(LOADING[tag], ""))
        elif tag == "a":
            self.links.append(found.get("href", ""))
        self._hidden += tag in ("code", "pre", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of code."""
        self._hidden -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        """Keep the text outside code."""
        if not self._hidden:
            self.text.append(data)


def mistakes(site: Path) -> list[str]:
    """Return what is wrong with the site, a line for each mistake."""
    # The pages of runs are made and tested by fedrobust itself; the site only links to them.
    paths = [path for path in sorted(site.rglob("*.html")) if path.parent.name != "report"]
    pages = {path.resolve(): Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        asked = [(target, False) for target in page.links]
        asked += [(target, True) for target in page.loaded]
        told = [(target, _wrong(target, path, pages, loaded)) for target, loaded in asked]
        found += [f"{name}: {target} {why}" for target, why in told if why]
        found += [f"{name}: raw markup: {raw[0]}" for raw in RAW.finditer("".join(page.text))]
    return found


def _wrong(target: str, page: Path, pages: dict[Path, Page], loaded: bool) -> str:
    """Return what is wrong with a link, or with what is loaded; empty if nothing is."""
    parts = urlsplit(target)
    if parts.scheme == "data" or not target:
        return ""
    if parts.scheme or parts.netloc:
        return "is loaded from another host" if loaded else ""
    if parts.path.startswith("/"):
        return "" if page.name == "404.html" else "begins at the root"
    there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not there.is_file():
        return "is not there"
    anchors = pages[there].anchors if there in pages else None
    if parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
        return "has no such anchor"
    return ""


def main() -> int:
    """Print the mistakes of the built site."""
    found = mistakes(SITE)
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
