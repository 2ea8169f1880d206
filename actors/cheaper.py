"""How many workers a vassal with ``cheaper`` needs: uWSGI's algorithms, a look each second. Pure.

Sources: "The uWSGI cheaper subsystem"; ``uwsgi_calc_cheaper`` and the algorithms in ``core/master_utils.c``.
It differs in three named places:

1. uWSGI takes a worker for busy if one of its threads is. Here a worker is *full* when it has no free thread, and
   *idle* when it has no busy one: only full ones ask for help, and only idle ones are sent away.
2. While connections wait and nobody has a free thread, ``spare`` does not count looks first: help comes at once.
3. ``backlog`` sends nobody away while all are at work.

>>> cheaper = Cheaper(Vassal(name="shop", processes=4, cheaper=1))
>>> [cheaper.decide(View(workers=1, full=1, idle=0)) for _ in range(4)]
[0, 0, 0, 1]
>>> cheaper.decide(View(workers=2, full=2, idle=0, waiting=1))
1
>>> [cheaper.decide(View(workers=3, full=0, idle=3)) for _ in range(3)]
[0, 0, -1]
"""

from dataclasses import dataclass

from pyemperor.protocol.options import Vassal


@dataclass(frozen=True, slots=True)
class View:
    """What is seen at one look: of ``workers``, those on their way up count as neither full nor idle."""

    workers: int
    full: int
    idle: int
    #: Connections that nobody has accepted yet.
    waiting: int = 0
    #: Resident memory of all workers, in bytes.
    rss: int = 0


class Cheaper:
    """Decides for one vassal; :meth:`decide` is asked once a second."""

    def __init__(self, vassal: Vassal) -> None:
        self._least = vassal.cheaper
        self._most = vassal.processes
        self._step = vassal.cheaper_step
        self._overload = vassal.cheaper_overload
        self._patience = vassal.cheaper_idle
        self._soft = vassal.cheaper_rss_limit_soft
        self._hard = vassal.cheaper_rss_limit_hard
        self._decide = {"backlog": self._backlog, "spare2": self._spare2}.get(vassal.cheaper_algo, self._spare)
        #: Looks at which all were full, less those at which one was not.
        self._full_looks = 0
        self._idle_looks = 0

    def decide(self, view: View) -> int:
        """Say by how many workers there are to be more, or fewer (negative); always within the bounds."""
        if self._hard and view.rss >= self._hard:
            change = -1
        else:
            change = self._decide(view)
            if self._soft and view.rss >= self._soft:
                change = min(change, 0)
        return min(max(change, self._least - view.workers), max(0, self._most - view.workers))

    def _spare(self, view: View) -> int:
        """uWSGI's default: one worker to spare."""
        if view.full == view.workers:
            self._full_looks += 1
            self._idle_looks = 0
        elif self._full_looks:
            self._full_looks -= 1
        urgent = view.full == view.workers and view.waiting > 0
        if urgent or self._full_looks > self._overload:
            self._full_looks = 0
            return self._step
        # One to spare is what is wanted; those that come up, or have a thread to spare, change nothing.
        if self._full_looks or view.idle <= 1:
            return 0
        self._idle_looks += 1
        return -1 if self._idle_looks % max(1, self._overload) == 0 else 0

    def _spare2(self, view: View) -> int:
        """``cheaper`` workers to spare; one fewer after ``cheaper-idle`` seconds with more than that."""
        coming = view.workers - view.full - view.idle
        if view.idle + coming < self._least:
            self._idle_looks = 0
            return min(self._step, self._least - view.idle - coming)
        if view.idle <= self._least:
            self._idle_looks = 0
            return 0
        self._idle_looks += 1
        if self._idle_looks < self._patience:
            return 0
        self._idle_looks = 0
        return -1

    def _backlog(self, view: View) -> int:
        """By the connections that wait: more workers above ``cheaper-overload`` of them, fewer below."""
        if view.waiting > self._overload:
            return self._step
        return -1 if view.waiting < self._overload and view.idle else 0
