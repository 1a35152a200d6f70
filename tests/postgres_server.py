"""A PostgreSQL server of the test's own, to be stopped, paused and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import missing


def _binaries() -> Path:
    found = shutil.which("pg_ctl")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return missing("PostgreSQL's initdb and pg_ctl", "not on PATH nor in /usr/lib/postgresql")


class OwnServer:
    """Runs as the user `postgres` where the tests run as root, which a server refuses to."""

    def __init__(self, folder: Path) -> None:
        self._binaries = _binaries()
        self._as: list[str] = []
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                missing(
                    "a user to run PostgreSQL", "the tests run as root, and postgres is unknown"
                )
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            self._as.append("--clear-groups")
        self._data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-N")
        settings = (
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{folder}'",
            "max_connections = 60",
        )
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write("\n".join(settings) + "\n")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        log = self._data / "server.log"
        try:
            self._run("pg_ctl", "-D", str(self._data), "-l", str(log), "-w", "start")
        except RuntimeError as error:
            raise RuntimeError(f"{error}{log.read_text()[-1000:]}") from None

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends what is going on, `immediate` is a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def ask_for_passwords(self) -> None:
        """Let no one in who has none."""
        self._let_in("scram-sha-256")

    def trust(self) -> None:
        """Let everyone in, as at the start."""
        self._let_in("trust")

    def _let_in(self, method: str) -> None:
        (self._data / "pg_hba.conf").write_text(f"host all all 127.0.0.1/32 {method}\n")
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to all of it at once, as when the power fails."""
        os.kill(self._processes()[0], signal.SIGSTOP)  # so that it starts no further ones
        processes = self._processes()
        for process in processes:
            os.kill(process, signal.SIGKILL)
        while any(_is_running(process) for process in processes):
            time.sleep(0.02)
        # A killed server that nobody has waited for would pass for a running one.
        for left in (self._data / "postmaster.pid", *self._data.parent.glob(".s.PGSQL.*.lock")):
            left.unlink()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            os.kill(process, number)

    def _processes(self) -> list[int]:
        """The server and each of its processes."""
        parent = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._binaries / program), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """A server that is stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ctxmgr-pg-"))
    try:
        server = OwnServer(folder)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
