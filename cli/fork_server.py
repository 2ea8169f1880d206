"""The fork server's process: ``python -P -m pyemperor.cli.fork_server FD FILES LOG-STYLE LEVEL [HANDLER ...]``.

It imports everything that the processes it forks need, once, and nothing of the command line.
"""

import sys

from pyemperor.cli.light import import_loguru


def main(arguments: list[str]) -> int:
    """Serve the Emperor's office, descriptor FD, with the handlers that other packages register.

    FILES is the limit of open files of whatever is forked, ``SOFT:HARD``.
    """
    import_loguru()
    from pyemperor.cli.processes import fork_server
    from pyemperor.cli.warm_up import warm_up

    fd, files, log_style, level, *registered = arguments
    soft, hard = map(int, files.split(":"))
    return fork_server(int(fd), log_style, level, registered, warm_up, (soft, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
