import os

import pytest

from graphcast_batch.files.durable import publish, replace


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path, monkeypatch):
    link = os.link

    def link_twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    publish(tmp_path / "file", b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"
    with pytest.raises(FileExistsError):
        publish(tmp_path / "file", b"other")


def test_a_file_of_another_that_is_gone_by_now_was_there_all_the_same(tmp_path, monkeypatch):
    link, path = os.link, tmp_path / "file"
    path.write_bytes(b"of another")

    def link_then_gone(source, target):
        try:
            link(source, target)
        finally:
            path.unlink()

    monkeypatch.setattr(os, "link", link_then_gone)
    with pytest.raises(FileExistsError):
        publish(path, b"mine")
    assert list(tmp_path.iterdir()) == []


def test_replacing_leaves_one_file_with_the_new_content(tmp_path):
    replace(tmp_path / "file", b"old")
    replace(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]
