"""What is kept between runs, which is a cache: a run without it takes longer, and no more."""

import fcntl
import pwd
import shutil
from pathlib import Path

import pytest

from stillroom.testing.databases.kept import KeptCluster


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a data folder, as far as the cache looks at one."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("18")
    return data


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user's folder of caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "stillroom"


def is_kept(project: Path) -> bool:
    """Say whether a run begins with something."""
    with KeptCluster(project).reading() as folder:
        return folder is not None and (folder / "PG_VERSION").read_text() == "18"


@pytest.mark.usefixtures("caches")
def test_what_a_run_keeps_the_next_one_reads(tmp_path: Path, data: Path) -> None:
    """Else the laws below would hold of a cache that never has anything."""
    assert not is_kept(tmp_path)

    KeptCluster(tmp_path).replace(data)

    assert is_kept(tmp_path)


def test_a_user_without_a_home_has_no_cache(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run under a number that nobody has, with no HOME."""

    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    KeptCluster(tmp_path).replace(data)
    KeptCluster(tmp_path).add_bare(data)

    assert not is_kept(tmp_path)


def test_a_cache_whose_lock_cannot_be_opened_is_not_read(
    tmp_path: Path, data: Path, caches: Path
) -> None:
    """It may be another user's or on a read-only disk, and then nobody can take turns there."""
    KeptCluster(tmp_path).replace(data)
    for lock in caches.glob("*.lock"):
        lock.unlink()
        lock.mkdir()

    KeptCluster(tmp_path).replace(data)

    assert not is_kept(tmp_path)
    assert not list(caches.glob(".*"))


def test_a_cache_that_was_removed_meanwhile_is_not_read(
    tmp_path: Path, data: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who removes old ones may have had the lock for which a run has waited."""
    KeptCluster(tmp_path).replace(data)

    def wait(*_: object) -> None:
        for folder in caches.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)

    monkeypatch.setattr(fcntl, "flock", wait)

    assert not is_kept(tmp_path)
