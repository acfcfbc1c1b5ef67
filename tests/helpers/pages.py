"""Reads the HTML pages that the project writes."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a test asks of a page.

    Attributes:
      tables: rows of cells' texts, by caption; parts of a cell have a space between them.
      images: alternative text and source of each.
      text: all that is neither style nor script.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href") if name in values]
        self.text += " " if tag == "br" else ""
        if tag == "img":
            self.images.append((values["alt"], values["src"]))
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "table":
            self._rows: list[list[str]] = []
        if tag not in ("img", "meta", "link", "br"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._inside or "script" in self._inside:
            return
        self.text += data
        if "caption" in self._inside:
            self.tables[data] = self._rows
        elif ("td" in self._inside or "th" in self._inside) and "svg" not in self._inside:
            self._rows[-1][-1] = f"{self._rows[-1][-1]} {data.strip()}".strip()
