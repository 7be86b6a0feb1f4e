"""A server that ends with its owner: a few lines of sh behind a pipe that only the owner holds.

The pipe closes when the owner says so, and equally when the owner is killed: the watchdog then
stops the server and removes the folders. There is no second way to stop. A child made by
`os.fork()` without exec inherits the pipe, and keeps the server alive as long as it lives.
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillroom.postgres.binaries import User

# The server says its pid (standard output is the pipe) before anything can happen to it or to its
# owner; standard error is its log.
_ANNOUNCE = 'echo $$ && exec "$@" >&2'

# After the first signal the pid may be another process's: only the one that `postmaster.pid` names
# as the server of these data gets another. A zombie that nobody reaps (in containers) has ended.
_SCRIPT = """
trap '' HUP INT QUIT TERM
signal=$1 data=$2 pid= is_left=
shift 2
while read -r line; do
    case $line in leave) is_left=1; break ;; esac
    pid=$line
done

alive() {
    [ -n "$pid" ] && kill -0 "$pid" || return 1
    if read -r stat <"/proc/$pid/stat"; then case $stat in *') Z '*) return 1 ;; esac; fi
}
await() {
    rounds=$1
    while alive && [ "$rounds" -gt 0 ]; do sleep 0.02 || sleep 1; rounds=$((rounds - 1)); done
}
serves() {
    alive && read -r first <"$data/postmaster.pid" && [ "$first" = "$pid" ]
}
insist() {
    if serves; then
        kill -s "$1" "$pid"
        await "$2"
    fi
}
if [ -n "$is_left" ]; then
    while serves; do sleep 1; done
    await 500
else
    if alive; then kill -s "$signal" "$pid"; await 500; fi
    insist QUIT 300
    insist KILL 100
fi
rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }
"""


class Watchdog:
    """Stop a server and then remove folders, when this is closed or this process ends.

    `signal` is the first one sent (INT: a fast shutdown, QUIT: an immediate one); after 10 s it is
    QUIT, then KILL.
    """

    def __init__(self, data: Path, *, signal: str, remove: Sequence[Path]) -> None:
        self._arguments = [signal, str(data), *map(str, remove)]
        self._watched: subprocess.Popen[bytes] | None = None
        self._start()

    def spawn(
        self,
        command: Sequence[str],
        *,
        log: int,
        environ: Mapping[str, str],
        user: User | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a server under watch, in a session of its own: no Ctrl-C reaches it."""
        self._watched = subprocess.Popen(
            ["/bin/sh", "-c", _ANNOUNCE, "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=self._pipe,
            stderr=log,
            cwd="/",
            env=environ,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        return self._watched

    @property
    def pids(self) -> tuple[int, int]:
        """Return the process ids of what is watched and of the watchdog."""
        if self._watched is None:
            raise RuntimeError("The watchdog watches nothing yet.")
        return self._watched.pid, self._process.pid

    def poll(self) -> str | None:
        """Say which of the two has ended, server or watchdog, and how; None while both run."""
        if self._watched and self._watched.poll() is not None:
            self._forget()
            return f"PostgreSQL (pid {self._watched.pid}) {how_it_ended(self._watched.returncode)}"
        if self._process.poll() is not None:
            how = how_it_ended(self._process.returncode)
            return f"the watchdog of PostgreSQL (pid {self._process.pid}) {how}"
        return None

    def wait(self) -> int:
        """Wait until the watched process ends by itself, and return its exit code."""
        if self._watched is None:
            raise RuntimeError("The watchdog watches nothing yet.")
        code = self._watched.wait()
        self._forget()
        self._watched = None
        return code

    def leave(self) -> None:
        """Let the server outlive this process; the folders go when somebody has stopped it."""
        os.write(self._pipe, b"leave\n")
        self._close_pipe()
        self._process.returncode = 0  # nobody waits for it: no warning that it still runs
        if self._watched is not None:
            self._watched.returncode = 0
            self._watched = None

    def close(self) -> None:
        """Stop the server, wait for its end, remove the folders; a killed watchdog is replaced."""
        self._close_pipe()
        while self._watched and self._watched.poll() is None:
            if self._process.poll() is not None:
                self._start()
                os.write(self._pipe, b"%d\n" % self._watched.pid)
                self._close_pipe()
            time.sleep(0.005)
        if self._process.wait() < 0:
            self._start()
            self._close_pipe()
            self._process.wait()

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "stillroom-watchdog", *self._arguments],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(reading)

    def _forget(self) -> None:
        """Tell the watchdog that the pid was reaped and means nothing any more."""
        if self._pipe >= 0 and self._process.poll() is None:
            os.write(self._pipe, b"\n")

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = -1


def how_it_ended(code: int) -> str:
    """Say in words how a process ended, from subprocess' return code."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
