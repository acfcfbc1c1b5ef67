"""What the HTML pages share: templates, among them `templates/base.html`, and the format of numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from base.local_files import write_text
from base.visible import visible


def write_page(
    template: str, output: Path, content: dict[str, Any], filters: dict[str, Callable[..., Any]] | None = None
) -> None:
    """Renders a page that needs no other file and no network.

    Args:
      template: file name of the template.
      output: the HTML file; replaced if there is one.
      content: the template's variables; everything that is not marked as safe is escaped. See `visible`, too.
      filters: filters in addition to those of all pages.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["size"] = format_size
    environment.filters["class"] = lambda label: label or "(no class)"
    environment.filters |= filters or {}
    write_text(output, visible(environment.get_template(template).render(content)))


def format_size(size: int) -> str:
    """Formats a number of bytes in decimal units: 1234567 as "1.2 MB"."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
