"""The honoured options of programs beside the workers and of hooks: what the retinue of a vassal reads."""

import msgspec

from pyemperor.protocol.cron import Cron
from pyemperor.protocol.daemons import Daemon
from pyemperor.protocol.hooks import Step, Touch
from pyemperor.protocol.option_rows.ancillary import ANCILLARY
from pyemperor.protocol.tables import rows

_ROWS = rows(ANCILLARY, "vassal")


class Ancillary(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What a vassal has beside its workers, and does when something happens. Times are seconds."""

    attach_daemon: tuple[Daemon, ...] = ()
    attach_control_daemon: tuple[Daemon, ...] = ()
    smart_attach_daemon: tuple[Daemon, ...] = ()
    smart_attach_daemon2: tuple[Daemon, ...] = ()
    attach_daemon2: tuple[Daemon, ...] = ()
    cron: tuple[Cron, ...] = ()
    cron2: tuple[Cron, ...] = ()
    unique_cron: tuple[Cron, ...] = ()
    cron_harakiri: float = _ROWS["cron-harakiri"].default
    hook_timeout: float = _ROWS["hook-timeout"].default
    exec_asap: tuple[Step, ...] = ()
    exec_pre_jail: tuple[Step, ...] = ()
    exec_post_jail: tuple[Step, ...] = ()
    exec_in_jail: tuple[Step, ...] = ()
    exec_as_root: tuple[Step, ...] = ()
    exec_as_user: tuple[Step, ...] = ()
    exec_as_user_atexit: tuple[Step, ...] = ()
    exec_pre_app: tuple[Step, ...] = ()
    exec_post_app: tuple[Step, ...] = ()
    hook_asap: tuple[Step, ...] = ()
    hook_pre_jail: tuple[Step, ...] = ()
    hook_post_jail: tuple[Step, ...] = ()
    hook_in_jail: tuple[Step, ...] = ()
    hook_as_root: tuple[Step, ...] = ()
    hook_as_user: tuple[Step, ...] = ()
    hook_as_user_atexit: tuple[Step, ...] = ()
    hook_pre_app: tuple[Step, ...] = ()
    hook_post_app: tuple[Step, ...] = ()
    hook_post_fork: tuple[Step, ...] = ()
    hook_master_start: tuple[Step, ...] = ()
    hook_accepting: tuple[Step, ...] = ()
    hook_accepting1: tuple[Step, ...] = ()
    hook_accepting_once: tuple[Step, ...] = ()
    hook_accepting1_once: tuple[Step, ...] = ()
    hook_emperor_stop: tuple[Step, ...] = ()
    hook_emperor_reload: tuple[Step, ...] = ()
    hook_emperor_lost: tuple[Step, ...] = ()
    hook_touch: tuple[Touch, ...] = ()
    touch_exec: tuple[Touch, ...] = ()

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        """All programs beside the workers."""
        return (
            self.attach_daemon
            + self.attach_control_daemon
            + self.smart_attach_daemon
            + self.smart_attach_daemon2
            + self.attach_daemon2
        )

    @property
    def crons(self) -> tuple[Cron, ...]:
        """All commands that have their times."""
        return self.cron + self.cron2 + self.unique_cron

    @property
    def touches(self) -> tuple[Touch, ...]:
        """All that is to be done for a file that was touched."""
        return self.hook_touch + self.touch_exec
