"""torchrun, attached to the process that started it, and brief about ranks that ended badly.

A rank has said itself why it failed; torchrun's own traceback below that would bury it.
"""

import logging
import sys

from svd.runtime.attached import die_with_parent

logger = logging.getLogger("svd.runtime.torchrun")


def main() -> int:
    """Run torchrun with this process's arguments; return its exit code."""
    die_with_parent()
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    from svd.runtime.log import set_up_logging

    set_up_logging()
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as err:
        rank, failure = err.get_first_failure()
        logger.error(  # noqa: TRY400 (the rank has printed its own traceback)
            "a rank failed", extra={"rank": rank, "pid": failure.pid, "exitcode": failure.exitcode}
        )
        return 1
    except SignalException as err:
        return 128 + int(err.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
