"""Text of users on a terminal: square brackets stay, and nothing in it steers the terminal."""

from importlib import import_module
from io import StringIO

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from graphcast_batch.cli import main
from graphcast_batch.screen import Screen, visible

commands = import_module("graphcast_batch.cli.application")  # whose name in the package is that of the app itself


def printed(*things, **options):
    file = StringIO()
    screen = Screen(file=file, force_terminal=True, width=60, color_system=None, **options)
    for thing in things:
        screen.print(thing, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("text", ["sc[a].csv", "[tz]*.grib", "[red]x[/red]", "[/]", ":smile: [link=x]", "a [bold"])
def test_square_brackets_and_colons_mean_themselves(text):
    table = Table(text, title=text)
    table.add_row(text)

    assert printed(text, Text(text)) == f"{text}\n{text}\n"
    assert printed(table).count(text) == 3


def test_what_steers_a_terminal_is_shown_written_out():
    attack = "a\x1b[2J\x1b]0;owned\x07b\x9b31m\u202ec"
    table = Table("x")
    table.add_row(attack)

    for out in (printed(attack), printed(Text(attack, "red")), printed(table)):
        assert "\x1b" not in out
        assert "a\\x1b[2J\\x1b]0;owned" in out
        assert "\\x9b31m\\u202ec" in out


def test_colors_and_bars_of_our_own_still_work():
    file = StringIO()
    screen = Screen(file=file, force_terminal=True, width=40, color_system="standard")
    screen.print(Text("red", "red"))
    with Live(Text("bar"), console=screen, auto_refresh=False):
        screen.print("above")

    assert "\x1b[31mred\x1b[0m\n" in file.getvalue()
    assert "above" in file.getvalue()
    assert "\x1b[2K" in file.getvalue()  # by which a bar is drawn anew


def test_text_without_such_characters_is_left_alone():
    assert visible("30° ×\nñ 日本") == "30° ×\nñ 日本"


def test_errors_and_lines_of_commands_keep_brackets_and_show_escapes(capsys, tmp_path):
    path = tmp_path / "a[b].yaml"
    path.write_text('"\\e[31mkey": 1\n')
    with pytest.raises(SystemExit):
        main(["plan", str(path)])
    commands.print_line("sc[a].csv")

    out, err = capsys.readouterr()
    assert "a[b].yaml" in err
    assert "\\x1b[31mkey: unknown key" in err
    assert "\x1b" not in err
    assert out == "sc[a].csv\n"


def test_a_bar_is_named_after_what_it_counts(capsys, monkeypatch):
    monkeypatch.setattr(commands, "console", Screen(force_terminal=True, width=80, color_system=None))

    assert list(commands.progress().track([1, 2], "errors of [x]", 2)) == [1, 2]
    with commands.progress().waiting("for [y]"):
        pass

    out = capsys.readouterr().out
    assert "errors of [x]" in out
    assert "for [y]" in out
