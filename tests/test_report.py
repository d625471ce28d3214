import re
import shutil

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ltlib.plots import save_figure
from ltlib.report import RESULTS_END, RESULTS_START, render, write_index, write_results


@pytest.fixture
def notebook(tmp_path):
    """An executed notebook with a figure, a table, a log and hostile text."""
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    data = pd.DataFrame({"class": ["<script>alert(1)</script>"], "accuracy": [0.5]})
    saved = save_figure(figure, tmp_path / "figures/page/line", data, alt="a line", caption="Up.")
    cells = [
        new_markdown_cell("# A *title*\n\nWhat it shows, with [a link](https://arxiv.org/abs/1)."),
        new_code_cell(
            "work()",
            execution_count=1,
            outputs=[
                new_output("stream", name="stderr", text="epoch 1\n"),
                new_output("stream", name="stderr", text="epoch 2\n"),
                new_output("execute_result", data={"text/html": saved._repr_html_()}),
                new_output("display_data", data={"text/html": data.to_html()}),
            ],
        ),
    ]
    file = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=cells), file)
    return file


def test_page_is_self_contained(notebook, tmp_path):
    page = render(notebook, tmp_path / "figures")
    text = page.read_text()
    assert page == tmp_path / "figures/page/report.html"
    loaded = re.findall(r'(?:src|href)="(?!data:|#|https://arxiv)([^"]+)"', text)
    assert set(loaded) == {"line.png", "line.csv"}
    assert "<script" not in text
    assert "@import" not in text
    assert len(text) < 1_000_000


def test_page_shows_figure_table_and_title_and_folds_code_and_log(notebook, tmp_path):
    text = render(notebook, tmp_path / "figures").read_text()
    assert "<title>A title</title>" in text
    assert 'alt="a line"' in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count('<details class="code">') == 1
    assert text.count('<details class="log">') == 1
    assert 'name="viewport"' in text


def test_index_lists_pages_with_title_and_summary(notebook, tmp_path):
    render(notebook, tmp_path / "figures")
    text = write_index(tmp_path / "figures").read_text()
    assert 'href="page/report.html"' in text
    assert "A title" in text
    assert "What it shows, with a link." in text


def test_error_is_shown(tmp_path):
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no data"])
    cells = [new_code_cell("x", execution_count=1, outputs=[error])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "bad.ipynb")
    assert "ValueError: no data" in render(tmp_path / "bad.ipynb", tmp_path).read_text()


def test_source_that_was_not_executed_is_refused(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("x")]), tmp_path / "source.ipynb")
    with pytest.raises(ValueError, match="was not executed; run papermill"):
        render(tmp_path / "source.ipynb", tmp_path)
    (tmp_path / "text.ipynb").write_text("no notebook")
    with pytest.raises(ValueError, match="is not a notebook"):
        render(tmp_path / "text.ipynb", tmp_path)


def test_results_replace_only_what_is_between_the_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{RESULTS_START}\nold\n{RESULTS_END}\nafter\n")
    write_results(readme, tmp_path / "runs")
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `proco-cifar100-if100` | 52.8 |  |  |  |  |" in text
    write_results(readme, tmp_path / "runs")
    assert readme.read_text() == text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_results(readme)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
def test_page_fits_the_window_and_asks_for_nothing(width, notebook, tmp_path):
    from playwright.sync_api import sync_playwright

    page_file = render(notebook, tmp_path / "figures")
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = page.locator("img")
        assert picture.evaluate("image => image.naturalWidth") > 0
        assert picture.bounding_box()["width"] <= width
        assert not page.locator("details.code pre").is_visible()
        page.locator("details.code summary").click()
        assert page.locator("details.code pre").is_visible()
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
