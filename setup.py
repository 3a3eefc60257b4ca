"""Build the package: add the example files to a wheel, and make the README's links hold on a package index.

Everything else about the package stands in pyproject.toml.
"""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Final

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT: Final = Path(__file__).parent
EXAMPLES: Final = ("configs/**/*.yaml", "slurm/*.sbatch", "stats/README.md", "stats/synthetic/*.n[cp]*")
"""Files that lie at the top of the repository; a wheel has them in graphcast_batch/examples (`app.demo` reads them)."""
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:)([^()\s]+)\)")
"""A Markdown link or picture whose target is no address."""


class BuildWithExamples(build_py):
    """Copy the example files beside the modules; an editable install reads them where they are."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "graphcast_batch", "examples")
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build in the same folder
        for file in example_files(ROOT):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, folder / file)


def example_files(root: Path) -> list[Path]:
    """Return the paths of the example files, relative to the folder ``root``, sorted."""
    return sorted(file.relative_to(root) for pattern in EXAMPLES for file in root.glob(pattern))


def index_readme(text: str, source: str | None, tag: str) -> str:
    """Return a README whose relative links hold away from the repository.

    Args:
        text: Markdown.
        source: address of the repository as a forge shows it; without one a link is left as its words, and a picture
            as its description.
        tag: of the release, whose files are linked.
    """
    parts = _FENCED.split(text)  # what is between fences is code
    parts[::2] = [_LINK.sub(lambda link: _absolute(link, source, tag), part) for part in parts[::2]]
    return "".join(parts)


def _absolute(link: re.Match[str], source: str | None, tag: str) -> str:
    picture, words, target = link.groups()
    if source is None:
        return f"*Picture: {words}*" if picture else words
    path = f"README.md{target}" if target.startswith("#") else target
    return f"{picture}[{words}]({source.rstrip('/')}/{'raw' if picture else 'blob'}/{tag}/{path})"


def _description() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return index_readme(text, project["urls"].get("Source"), f"v{project['version']}")


if __name__ == "__main__":
    setup(
        cmdclass={"build_py": BuildWithExamples},
        long_description=_description(),
        long_description_content_type="text/markdown",
    )
