"""Processes beside the workers: what each is, and what it does (see ``attendant``)."""

from collections.abc import Callable

from pyemperor.actors.actor import Actor, System
from pyemperor.actors.attendants.attendant import Attendant, Hands
from pyemperor.actors.attendants.errand import Errand, Watch
from pyemperor.actors.attendants.service import Service
from pyemperor.actors.journal import Journal
from pyemperor.actors.superior import Upward
from pyemperor.protocol.hooks import Step
from pyemperor.protocol.messages import Birth

__all__ = ["Attendant", "Hands", "new_attendant"]


def new_attendant(
    system: System, journal: Journal, birth: Birth, upward: Upward, hands: Callable[[Actor], Hands]
) -> Attendant:
    """Make the attendant that ``birth`` describes."""
    vassal = birth.vassal
    common = (system, journal, birth, upward, hands)
    match birth.kind:
        case "daemon":
            return Service(*common, daemon=vassal.daemons[birth.index - 1])
        case "cron":
            cron = vassal.crons[birth.index - 1]
            limit = vassal.cron_harakiri if cron.harakiri is None else cron.harakiri
            return Errand(*common, steps=[Step("exec", cron.command, option="cron")], limit=limit)
        case "touch":
            return Watch(*common, steps=(), limit=vassal.hook_timeout)
    return Errand(*common, steps=birth.steps, limit=vassal.hook_timeout)
