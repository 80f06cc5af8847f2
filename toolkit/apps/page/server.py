"""The page's server as a process of its own, which ends with its input: when whoever started it ends, however."""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Run Streamlit with the flags in ``sys.argv``."""
    from streamlit import net_util
    from streamlit.web import cli

    # A request from a foreign origin makes Streamlit ask a server on the internet for this machine's own address.
    net_util.get_external_ip = lambda: None
    net_util.get_internal_ip = lambda: None
    threading.Thread(target=_end_with_input, daemon=True).start()
    cli.main(sys.argv[1:], prog_name="emotion-lrm ui")


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
