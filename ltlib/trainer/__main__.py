"""Train the run of a folder; what ``reproduce`` starts under torchrun.

What a user can mend is not printed here but left in the run's ``status.json``, for the launcher.
"""

import argparse
import logging
import sys
from pathlib import Path

from ltlib.distributed import process_group
from ltlib.runs import RunError, read_config
from ltlib.trainer import train


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--num-workers", type=int)
    parser.add_argument("--views")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction)
    parser.add_argument("--download", action=argparse.BooleanOptionalAction, default=False)
    options = vars(parser.parse_args())
    run_dir = options.pop("run_dir")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with process_group():
            train(read_config(run_dir), run_dir, **options)
    except (ValueError, OSError, RunError, KeyboardInterrupt):
        sys.exit(1)


if __name__ == "__main__":
    main()
