"""The short way of a request: that it is one, that it ends like the long one, and where it goes over into that."""

import errno
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyemperor.actors import express
from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.cgi_runner import ErrorPipe
from pyemperor.actors.clock import monotonic
from pyemperor.actors.exchange import Exchange
from pyemperor.actors.express import Express
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.process import Process
from pyemperor.actors.script import Script, Spawn, Terms
from pyemperor.actors.slots import Slots
from pyemperor.actors.warm import Child, Templates
from pyemperor.actors.wires import Request, UwsgiWire
from pyemperor.protocol.uwsgi import encode_packet

PATIENCE = 15.0
GET = [(b"REQUEST_METHOD", b"GET"), (b"SERVER_PROTOCOL", b"HTTP/1.1"), (b"PATH_INFO", b"/x")]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n"
SAY_HELLO = "printf 'Content-Type: text/plain\\n\\nhello\\n'"


class Counter:
    """A runner's place, with a real script; ``long`` counts the exchanges that it took."""

    def __init__(
        self, inbox: EpollInbox, command: str, slot: object = None, warm: Spawn | None = None, **terms: bool
    ) -> None:
        self.inbox = inbox
        self.long = 0
        self.handled: list[Request] = []
        self.stderr: list[str] = []
        self._errors = ErrorPipe(inbox, lambda line, _: self.stderr.append(line))
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        arguments = (b"sh", b"-c", command.encode())
        all_terms = Terms(PATIENCE, **terms)  # type: ignore[arg-type]
        self.script = Script(
            b"/bin/sh", arguments, {}, b"/", "/x", all_terms, warm=warm is not None, slot=slot
        )
        self.answer: Script | bytes = self.script
        self.warm = warm
        self.express = Express(
            inbox, self._handle, self._errors, self._null, warm, 65535, monotonic, self._exchange
        )

    def _handle(self, request: Request) -> Script | bytes:
        self.handled.append(request)
        return self.answer

    def _exchange(self, sock: socket.SocketType, outcome: Outcome) -> Exchange:
        self.long += 1
        handlers = {9: self._handle}
        return Exchange(
            self.inbox, sock, UwsgiWire(65535), outcome, handlers, self._errors, self._null, PATIENCE, self.warm
        )

    def begin(self, sock: socket.socket) -> Outcome | Exchange:
        return self.express.serve(socket.SocketType(sock.family, sock.type, 0, sock.detach()), monotonic())

    def serve(self, sock: socket.socket) -> Outcome:
        taken = self.begin(sock)
        if isinstance(taken, Exchange):
            while not taken.handle(self.inbox.get().message, monotonic()):
                pass
            return taken.outcome
        return taken

    def close(self) -> None:
        self._errors.close()
        os.close(self._null)


@pytest.fixture
def pair(pair: "Pair") -> "Pair":
    pair[0].settimeout(PATIENCE)
    return pair


@pytest.fixture
def counter(inbox: EpollInbox) -> Iterator[Callable[..., Counter]]:
    opened: list[Counter] = []

    def make(command: str = SAY_HELLO, **how: Any) -> Counter:
        opened.append(Counter(inbox, command, **how))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script has all the time of the test to be over in its moment: the machine may be busy."""
    for name in ("PROMPT", "_EXIT"):
        monkeypatch.setattr(express, name, PATIENCE)


Make = Callable[..., Counter]
Pair = tuple[socket.socket, socket.socket]


def descriptors() -> set[str]:
    gc.collect()
    with os.scandir("/proc/self/fd") as entries:
        found = {f"{entry.name} {os.readlink(entry.path)}" for entry in entries if int(entry.name) > 2}
    return {line for line in found if not line.endswith(f" /proc/{os.getpid()}/fd")}  # the one that this took


def told(client: socket.socket) -> bytes:
    data = b""
    while block := client.recv(65536):
        data += block
    return data


@pytest.mark.usefixtures("unhurried")
def test_a_plain_request_needs_no_exchange(counter: Make, pair: Pair) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    at = counter(SAY_HELLO + "; echo oops >&2")
    outcome = at.serve(server)
    assert told(client) == HELLO
    assert at.long == 0
    assert (outcome.status, outcome.sent, outcome.head_fields, outcome.problem) == (200, len(HELLO), 1, "")
    assert outcome.head_size == len(HELLO) - len("hello\n")
    assert outcome.pid > 0
    assert outcome.ending is not None
    assert outcome.ending.code == 0
    assert outcome.ending.peak > 0
    assert at.handled[0].variables[b"REQUEST_ID"].decode() == outcome.id
    assert at.stderr == ["/x: oops"]


@pytest.mark.usefixtures("unhurried")
def test_it_opens_nothing_that_stays(counter: Make) -> None:
    at = counter()
    before = descriptors()
    for _ in range(5):
        client, server = socket.socketpair()
        with client:
            client.sendall(encode_packet(GET))
            at.serve(server)
            assert told(client) == HELLO
    assert descriptors() == before


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_code_is_told_and_hides_no_response(counter: Make, pair: Pair, code: int) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    outcome = counter(f"{SAY_HELLO}; exit {code}").serve(server)
    assert told(client) == HELLO
    assert outcome.ending is not None
    assert outcome.ending.code == code


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("echo this is no header", 502),
        ("exit 0", 502),
        ("printf 'Status: 204\\n\\nbody'", 204),
        ("printf 'Status: 404\\n\\nnot here'", 404),
        ("printf 'Location: http://elsewhere/\\n\\n'", 302),
        ("printf 'HTTP/1.1 206 Some\\r\\n\\r\\nbody'", 206),
    ],
)
def test_it_ends_like_the_long_way(counter: Make, command: str, status: int) -> None:
    ends = []
    for late in (False, True):
        client, server = socket.socketpair()
        with client:
            client.settimeout(PATIENCE)
            at = counter(command)
            packet = encode_packet(GET)
            client.sendall(packet[:-1] if late else packet)
            taken = at.begin(server)
            if late:
                assert isinstance(taken, Exchange)
                client.sendall(packet[-1:])
            while isinstance(taken, Exchange) and not taken.handle(at.inbox.get().message, monotonic()):
                pass
            outcome = taken.outcome if isinstance(taken, Exchange) else taken
            ends.append((told(client), outcome.status, outcome.sent, outcome.problem, outcome.head_size))
    assert ends[0] == ends[1]
    assert ends[0][1] == status


@pytest.mark.parametrize("command", [SAY_HELLO + "; kill -9 $$", "printf 'Content-Length: 9\\n\\nshort'"])
@pytest.mark.usefixtures("unhurried")
def test_what_is_no_whole_response_is_none(counter: Make, pair: Pair, command: str) -> None:
    """Nothing was sent when it turns out: so it can be said, and need not be shown by a broken connection."""
    client, server = pair
    client.sendall(encode_packet(GET))
    assert counter(command).serve(server).status == 502
    assert told(client).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "command",
    [
        f"{SAY_HELLO}; exec >&-; sleep 0.1; exit 3",
        f"sleep 0.1; {SAY_HELLO}; exit 3",
        "printf 'Content-Type: text/plain\\n\\nhel'; sleep 0.1; echo lo; exit 3",
    ],
    ids=["lives on", "thinks", "pauses"],
)
def test_a_script_that_takes_its_time_goes_the_long_way(counter: Make, pair: Pair, command: str) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    at = counter(command)
    outcome = at.serve(server)
    assert told(client) == HELLO
    assert at.long == 1
    assert len(at.handled) == 1, "nothing is done twice"
    assert outcome.ending is not None
    assert outcome.ending.code == 3


def test_mail_does_not_wait_for_a_script(counter: Make, pair: Pair, inbox: EpollInbox) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    inbox.after(0, "mail")
    mail = inbox.get()
    inbox.put(mail)
    at = counter(f"read x </dev/zero; {SAY_HELLO}")  # for ever
    exchange = at.begin(server)
    assert isinstance(exchange, Exchange)
    assert inbox.get() is mail
    over = exchange.abort("the server is stopping", monotonic())
    while not over:
        over = exchange.handle(inbox.get().message, monotonic())
    assert told(client).startswith(b"HTTP/1.1 503 ")


@pytest.mark.usefixtures("unhurried")
def test_a_response_that_does_not_fit_goes_on_when_there_is_room(counter: Make, pair: Pair) -> None:
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client.sendall(encode_packet(GET))
    at = counter("printf 'Content-Type: text/plain\\n\\n'; head -c 60000 /dev/zero")
    exchange = at.begin(server)
    assert isinstance(exchange, Exchange)
    assert 0 < exchange.outcome.sent < 60000
    data = b""
    over = False
    while not over:
        data += client.recv(1 << 20)
        over = exchange.handle(at.inbox.get().message, monotonic())
    data += told(client)
    assert data.partition(b"\r\n\r\n")[2] == bytes(60000)
    assert exchange.outcome.sent == len(data)
    assert at.long == 1


@pytest.mark.usefixtures("unhurried")
def test_a_client_that_says_more_than_its_request_reads_its_response(counter: Make, pair: Pair) -> None:
    """It came behind the request, after somebody had looked at that; to close now would break the connection."""
    client, server = pair
    client.sendall(encode_packet(GET))
    at = counter()

    def answer(request: Request) -> Script:
        client.sendall(b"more")
        return at.script

    at.express._handler = answer
    exchange = at.begin(server)
    assert isinstance(exchange, Exchange)
    assert told(client) == HELLO
    client.sendall(b"and more")
    client.close()
    while not exchange.handle(at.inbox.get().message, monotonic()):
        pass
    assert exchange.outcome.problem == ""


def test_a_client_that_has_left_is_noted(counter: Make, pair: Pair) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    client.close()
    outcome = counter().serve(server)
    assert outcome.problem.startswith("the client left: ")
    assert outcome.sent == 0


def test_a_script_that_cannot_be_started_is_an_answer(counter: Make, pair: Pair) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    at = counter()
    at.answer = Script(b"/no/such", (b"x",), {}, b"/", "/x", Terms(PATIENCE))
    assert at.serve(server).status == 500
    assert told(client).startswith(b"HTTP/1.1 500 ")
    assert len(at.handled) == 1


@pytest.mark.parametrize("own", [False, True])
def test_a_script_leads_a_group_and_if_asked_for_a_session(counter: Make, pair: Pair, own: bool) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    counter("printf 'Content-Type: text/plain\\n\\n'; ps -o sid=,pgid=,pid= $$", session=own).serve(server)
    session, group, pid = map(int, told(client).partition(b"\r\n\r\n")[2].split())
    assert group == pid
    assert session == (pid if own else os.getsid(0))


@pytest.mark.usefixtures("unhurried")
def test_its_place_is_given_back_before_the_answer(counter: Make, pair: Pair, tmp_path: Path) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    slots = Slots(bytes(tmp_path), 1)
    at = counter(slot=slots.take())
    assert slots.take() is None
    at.serve(server)
    assert told(client) == HELLO
    assert at.long == 0
    slot = slots.take()
    assert slot
    slot.release()


def broken_off(at: Counter, server: socket.socket, file: Path) -> tuple[int, int]:
    """Have the first wait fail, once the script has written its pid to the FIFO: that, and a pidfd."""
    found: list[tuple[int, int]] = []

    class Broken(EpollInbox):
        def await_now(self, fd: int, mask: int, seconds: float) -> bool:
            pid = int(file.read_text())
            found.append((pid, os.pidfd_open(pid)))
            raise MemoryError

    with closing(Broken()) as broken:
        at.express._inbox = broken
        with pytest.raises(MemoryError):
            at.begin(server)
    at.express._inbox = at.inbox
    return found[0]


def test_an_error_of_ours_leaves_no_script_and_no_descriptor(counter: Make, pair: Pair, tmp_path: Path) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    file = tmp_path / "pid"
    os.mkfifo(file)
    at = counter(f"echo $$ >{file}; exec sleep 1000")
    before = descriptors()
    pid, pidfd = broken_off(at, server, file)
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert descriptors() <= before


# ---- scripts that are forked from a template ---------------------------------------------------------------


@pytest.fixture(scope="module")
def templates() -> Iterator[Templates]:
    templates = Templates(pytest.fail)
    yield templates
    templates.close()


def python(at: Counter, file: Path, text: str) -> None:
    """Have it run this instead, in a fork of a template that is up."""
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(0o755)
    at.script = at.answer = msgspec.structs.replace(at.script, path=bytes(file), arguments=(bytes(file),))


Warm = Callable[[str], Counter]
PRINT_HELLO = r"print('Content-Type: text/plain\n\nhello', flush=True)"


@pytest.fixture
def warm(counter: Make, templates: Templates, tmp_path: Path) -> Warm:
    def make(text: str) -> Counter:
        at = counter(warm=templates.spawn)
        python(at, tmp_path / "script.py", text)
        assert templates.wait_until_up(at.script, PATIENCE)
        return at

    return make


@pytest.mark.usefixtures("unhurried")
def test_a_warm_script_needs_no_exchange(warm: Warm) -> None:
    at = warm(f"import os, sys; {PRINT_HELLO}; print(os.getpid(), file=sys.stderr); sys.exit(3)")
    before = descriptors()
    for _ in range(3):
        client, server = socket.socketpair()
        with client:
            client.sendall(encode_packet(GET))
            outcome = at.serve(server)
            assert told(client) == HELLO
        assert outcome.ending is not None
        assert (outcome.status, outcome.ending.code, outcome.problem) == (200, 3, "")
        assert at.stderr.pop() == f"/x: {outcome.pid}"
    assert at.long == 0
    assert descriptors() == before


@pytest.mark.parametrize(
    "text",
    [
        f"{PRINT_HELLO}; import os, time\nif os.fork() == 0: time.sleep(1)",
        f"{PRINT_HELLO}; import os, time; os.close(1); time.sleep(1)",
    ],
)
def test_a_warm_script_of_two_ends_goes_the_long_way(warm: Warm, pair: Pair, text: str) -> None:
    """Its output ends before it does, or after."""
    client, server = pair
    client.sendall(encode_packet(GET))
    at = warm(text)
    outcome = at.serve(server)
    assert told(client) == HELLO
    assert at.long == 1
    assert outcome.problem == ""


@pytest.mark.usefixtures("unhurried")
def test_a_warm_script_that_is_killed_has_said_nothing(warm: Warm, pair: Pair) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    outcome = warm(f"{PRINT_HELLO}; import os, signal; os.kill(os.getpid(), signal.SIGKILL)").serve(server)
    assert told(client).startswith(b"HTTP/1.1 502 ")
    assert "killed" in outcome.problem
    assert outcome.ending is not None
    assert outcome.ending.signal == signal.SIGKILL


def test_a_script_that_turns_out_not_to_run_is_executed(counter: Make, pair: Pair) -> None:
    """Its template has died, or could not fork: known only when its output should have ended."""

    def refused(_: socket.socket) -> int:
        raise OSError

    def spawn(*_: object) -> Child:
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        return Child(line, refused)

    client, server = pair
    client.sendall(encode_packet(GET))
    at = counter(warm=spawn)
    before = descriptors()
    outcome = at.serve(server)
    assert told(client) == HELLO
    assert outcome.ending is not None
    assert outcome.ending.code == 0
    assert descriptors() <= before


def test_an_error_of_ours_leaves_no_warm_script(warm: Warm, pair: Pair, tmp_path: Path) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    file = tmp_path / "pid"
    os.mkfifo(file)
    at = warm(f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")
    _, pidfd = broken_off(at, server, file)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "it lives on"
    os.close(pidfd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users' processes")
def test_a_stranger_in_its_group_is_left_alone(counter: Make, pair: Pair) -> None:
    """Within a session everybody may join a process group, also somebody whom nobody here can signal."""
    script = counter("exec sleep 1000").script
    with closing(EpollInbox()) as inbox, open(os.devnull) as null:
        process = Process.start(inbox, script, stdin=null.fileno(), stderr=2)
        stranger = subprocess.Popen(["sleep", "1000"], process_group=process.pid, user="daemon")
        code = (
            "import os, sys; from pyemperor.actors.actor import EpollInbox;"
            "from pyemperor.actors.process import Process;"
            "from pyemperor.actors.script import Script, Terms;"
            "p = Process(EpollInbox(), Script(b'', (), {}, b'/', '', Terms(1.0)));"
            f"p.pid = {process.pid}; p.ending = object(); os.setuid(65534);"
            "p.end(0.0, 15, 1.0); p.insist(0.5); assert p.gone; p.insist(2.0)"
        )
        try:
            process.signal(signal.SIGSTOP)
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert process.reap()
            subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=PATIENCE)
        finally:
            stranger.kill()
            stranger.wait()
            process.close()


def test_an_error_in_the_first_step_of_an_exchange_leaves_nothing(
    counter: Make, pair: Pair, tmp_path: Path
) -> None:
    client, server = pair
    client.sendall(encode_packet(GET))
    slots = Slots(bytes(tmp_path), 1)
    file = tmp_path / "pid"
    os.mkfifo(file)

    class Broken(EpollInbox):
        def watch(self, fd: int, mask: int, source: object) -> None:
            raise OSError(errno.ENOSPC, "no watch is left")

    with closing(Broken()) as broken:
        at = counter(f"echo $$ >{file}; exec sleep 1000", slot=slots.take())
        at.inbox = at.express._inbox = broken
        before = descriptors()
        reader = threading.Thread(target=lambda: pids.append(int(file.read_text())))
        pids: list[int] = []
        reader.start()
        with pytest.raises(OSError, match="no watch is left"):
            at.begin(server)
        reader.join()
        with suppress(ChildProcessError):  # whoever kills it looks whether that is all, and may find it dead
            os.waitpid(pids[0], 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)
        gone = descriptors()
    slot = slots.take()
    assert slot
    slot.release()
    assert gone <= before


def test_an_answer_of_bytes_waits_only_so_long_for_its_client(counter: Make, pair: Pair) -> None:
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client.sendall(encode_packet(GET))
    at = counter()
    at.answer = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(60000)
    exchange = at.begin(server)
    assert isinstance(exchange, Exchange)
    assert at.inbox._timers.next_at() is not None
    exchange.release()


def test_mail_that_was_read_does_not_end_the_next_wait(inbox: EpollInbox) -> None:
    inbox.after(0, "mail")
    mail = inbox.get()
    reading, writing = os.pipe()
    threading.Timer(0.05, inbox.put, [mail]).start()
    assert not inbox.await_now(reading, 1, PATIENCE)
    assert inbox.get() is mail
    threading.Timer(0.05, os.write, [writing, b"x"]).start()
    assert inbox.await_now(reading, 1, PATIENCE), "nothing but what was waited for ended it"
    os.close(reading)
    os.close(writing)


def test_the_wait_for_one_descriptor(inbox: EpollInbox) -> None:
    reading, writing = os.pipe()
    try:
        assert not inbox.await_now(reading, 1, 0.001)
        os.write(writing, b"x")
        assert inbox.await_now(reading, 1, PATIENCE)
        assert not inbox.await_now(reading, 0, 0.001), "it is not at its end"
        os.close(writing)
        assert inbox.await_now(reading, 0, PATIENCE)
        inbox.after(0, "mail")
        mail = inbox.get()
        inbox.put(mail)
        inbox.await_now(reading, 0, PATIENCE)
        assert inbox.get() is mail
    finally:
        os.close(reading)
