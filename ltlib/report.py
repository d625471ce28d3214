"""Executed notebook -> one HTML page that opens anywhere, and the index of all pages.

A page needs no network: figures are embedded, the style is our own, code and logs are folded.
"""

import html
import re
from importlib.resources import files
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from ltlib.recipes import TABLES
from ltlib.reproduce import compare
from ltlib.runs import load_runs

RESULTS_START, RESULTS_END = "<!-- results -->", "<!-- /results -->"
TEMPLATES = Path(str(files("ltlib") / "templates"))


def render(notebook: Path | str, figures_dir: Path | str = "figures") -> Path:
    """Render an executed notebook to ``<figures_dir>/<notebook>/report.html`` and list it.

    Args:
        notebook: An executed notebook, as papermill writes it.
        figures_dir: Folder of figures and reports.

    Returns:
        The page.

    Raises:
        ValueError: If the file is not a notebook, or no cell of it was executed.
    """
    notebook, figures_dir = Path(notebook), Path(figures_dir)
    content = _read(notebook)
    title, _ = _heading(content)
    exporter = HTMLExporter(
        extra_template_basedirs=[str(TEMPLATES)], template_name="report", embed_images=True
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    body, _ = exporter.from_notebook_node(
        content, resources={"page_title": title, "page_style": _style()}
    )
    page = figures_dir / notebook.stem / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(body, encoding="utf-8")
    (page.parent / "about.txt").write_text("\n".join(_heading(content)), encoding="utf-8")
    write_index(figures_dir)
    return page


def write_index(figures_dir: Path | str = "figures") -> Path:
    """Write ``index.html``, which lists every report below a folder.

    Returns:
        The page.
    """
    figures_dir = Path(figures_dir)
    cards = []
    for page in sorted(figures_dir.glob("*/report.html")):
        folder = page.parent
        title, _, summary = (folder / "about.txt").read_text(encoding="utf-8").partition("\n")
        picture = next(iter(sorted(folder.glob("*.png"))), None)
        image = f'<img alt="" src="{folder.name}/{picture.name}">' if picture else ""
        cards.append(
            f'<li><a href="{folder.name}/report.html">{image}'
            f"<strong>{html.escape(title)}</strong><span>{html.escape(summary)}</span></a></li>"
        )
    index = figures_dir / "index.html"
    index.write_text(
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Reports</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>Reports</h1>\n<ul class="cards">\n{chr(10).join(cards)}\n</ul>\n'
        "</main>\n</body>\n</html>\n",
        encoding="utf-8",
    )
    return index


def write_results(readme: Path | str, runs_dir: Path | str = "runs") -> None:
    """Write every table, paper beside ours, between the marks of a Markdown file.

    Raises:
        ValueError: If the file lacks the marks.
    """
    readme = Path(readme)
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(RESULTS_START)
    _, end, after = rest.partition(RESULTS_END)
    if not (start and end):
        raise ValueError(f"{readme} lacks the lines {RESULTS_START} and {RESULTS_END}")
    tables = "\n\n".join(_results(name, runs_dir) for name in TABLES)
    readme.write_text(f"{before}{start}\n\n{tables}\n\n{end}{after}", encoding="utf-8")


def _results(table: str, runs_dir: Path | str) -> str:
    """Return a table of the README: recipe, paper, ours with spread and n, best on test."""
    compared = compare(table, load_runs(runs_dir))
    compared = compared[compared["comparable"] != False]  # noqa: E712 (None is not run)
    lines = [
        "| recipe | paper (%) | ours (%) | n | best on test (%) | machine |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in compared.to_dict("records"):
        ours = _number(row["ours (%)"])
        if row["n"] > 1:
            ours += f" ± {_number(row['std'])}"
        best, machine = _number(row["best on test (%)"]), row["machine"] if row["n"] else ""
        cells = (_number(row["paper (%)"]), ours, row["n"] or "", best, machine)
        lines.append(f"| `{row['recipe']}` | {' | '.join(map(str, cells))} |")
    rows = "\n".join(lines)
    title, protocol = TABLES[table].title, TABLES[table].protocol
    if compared["n"].any():
        return f"**{title}** ({protocol})\n\n{rows}"
    return (
        f"<details><summary><b>{title}</b> ({protocol}): not run yet</summary>\n\n"
        f"{rows}\n\n</details>"
    )


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"


def _read(notebook: Path) -> NotebookNode:
    try:
        content = nbformat.read(notebook, as_version=4)
    except nbformat.reader.NotJSONError:
        raise ValueError(f"{notebook} is not a notebook") from None
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    if not any(cell.execution_count for cell in code):
        raise ValueError(f"{notebook} was not executed; run papermill {notebook} OUTPUT first")
    return content


def _heading(content: NotebookNode) -> tuple[str, str]:
    """Return the first heading and the paragraph after it, without markup."""
    for cell in content.cells:
        match = re.match(r"#\s+(.+)\n+(.*(?:\n.+)*)", cell.source)
        if cell.cell_type == "markdown" and match:
            title, summary = (re.sub(r"[*`]|\[(.*?)\]\(.*?\)", r"\1", x) for x in match.groups())
            return title, " ".join(summary.split())
    return "Report", ""


def _style() -> str:
    own = (TEMPLATES / "report" / "style.css").read_text(encoding="utf-8")
    return own + HtmlFormatter(style="default").get_style_defs(".highlight") + "\n"
