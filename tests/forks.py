"""Run ``ltlib`` in forked processes: importing torch once makes many interruptions affordable.

As a script it reads requests from its standard input and answers each with one line: it starts a
command and gives its process number, or waits for one and gives its exit status.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path


class Forks:
    """A process that forks others, each of which runs one ``ltlib`` command."""

    def __enter__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        return self

    def __exit__(self, *error):
        self.server.communicate()

    def _ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, arguments, log: Path, **options) -> int:
        """Start ``ltlib`` with its output in a file; see ``be_ltlib``."""
        return self._ask(arguments=[str(a) for a in arguments], log=str(log), **options)

    def wait(self, process: int) -> int:
        """Return the exit status, negative if a signal killed it."""
        return self._ask(wait=process)


def be_ltlib(arguments, log, environment=None, checkpoint_seconds=None, keep=False, largest=None):
    """Be the command in this process.

    Args:
        arguments: After ``ltlib``.
        log: File of its output and errors.
        environment: Variables to add.
        checkpoint_seconds: Default of ``train``.
        keep: Whether the finished run's checkpoint stays.
        largest: Bytes a file can have, which stands for a full disk.
    """
    from ltlib import cli
    from ltlib.trainer import loop

    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.setsid()
    os.environ |= environment or {}
    if checkpoint_seconds is not None:
        loop.train.__kwdefaults__["checkpoint_seconds"] = checkpoint_seconds
    if keep:
        loop.remove_checkpoints = lambda run_dir: None
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["ltlib", *arguments]
    cli.main()


def main():
    import torch

    import ltlib.trainer  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                be_ltlib(**request)
                sys.exit(0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
