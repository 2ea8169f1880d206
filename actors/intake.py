"""The request's body on its way from the client to the script.

What the script has not taken is kept, at most one chunk, and nothing more is read from the client until it is
gone. Two kinds of bodies are read all the same, into a file: those that are to be whole before the script starts
(post-buffering), and those behind which an early response waits, since the script may not read before it is heard.
"""

from pyemperor.actors.connection import Connection
from pyemperor.actors.process import Process
from pyemperor.actors.refusals import no_room
from pyemperor.actors.spool import Spool


class Intake:
    """The body of one request; only the first script gets it, not one that a redirect leads to."""

    _process: Process | None = None
    #: Of a request that starts when all of it is here.
    _kept: Spool | None = None

    def __init__(self, client: Connection) -> None:
        self._client = client

    def keep(self) -> None:
        """Keep the body until all of it is here; raises RequestError without room for it."""
        self._kept = Spool()
        self._put(self._kept, self._client.first_body())
        self._client.ask_for_body()

    def begin(self, process: Process) -> bool:
        """Give ``process`` what is here of the body; True when it took something."""
        self._process = process
        if self._kept:
            process.pending, self._kept = self._kept, None
        taken = self.feed(self._client.first_body())
        if self._client.missing:
            self._client.ask_for_body()
        return taken

    @property
    def keeps(self) -> bool:
        """Whether it is kept until the script starts."""
        return self._kept is not None

    @property
    def takes(self) -> bool:
        """Whether there is room in memory for the next bytes of it."""
        return self._process is None or not self._process.pending.next

    def take(self) -> bool:
        """Take the next bytes from the client; True when something moved. Raises RequestError, ClientLeft."""
        data = self._client.read_body()
        if self._kept is None:
            return self.feed(data)
        self._put(self._kept, data)
        return True

    def feed(self, data: bytes = b"") -> bool:
        """Give the script ``data`` after what it has not taken; True when something moved. Raises RequestError."""
        process = self._process
        if process is None or process.asked_at is not None:
            return False  # to whom was asked to end, the end of what is here must not look like that of the body
        try:
            taken = process.feed(data, last=not self._client.missing)
        except OSError as error:
            raise no_room(error) from None
        return bool(taken or data)

    def clear(self) -> None:
        """Forget what is kept."""
        if self._kept:
            self._kept.clear()

    @staticmethod
    def _put(spool: Spool, data: bytes) -> None:
        try:
            spool.put(data)
        except OSError as error:
            raise no_room(error) from None
