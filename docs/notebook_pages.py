"""Show the notebooks as pages: their text, and their code without what it prints."""

import json

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers files that end with ``.ipynb`` as pages."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class NotebookParser(MystParser):
    """Parses a notebook as the Markdown that it stands for."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses the JSON of a notebook."""
        cells = json.loads(inputstring)["cells"]
        super().parse("\n\n".join(_markdown(cell["cell_type"], "".join(cell["source"])) for cell in cells), document)


def _markdown(kind: str, source: str) -> str:
    return f"```python\n{source}\n```" if kind == "code" else source
