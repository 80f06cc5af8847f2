"""One window that shows one address, by pywebview, as a process of its own that ends with its input."""

from __future__ import annotations

import logging
import os
import sys
import threading

from toolkit.apps.desktop import NO_WINDOW, SIZE


def main(url: str) -> int:
    """Show ``url`` until the window is closed."""
    import webview

    logging.getLogger("pywebview").setLevel(logging.CRITICAL)  # it shows a traceback for each kit that is not there
    webview.settings["ALLOW_DOWNLOADS"] = True
    webview.create_window("Emotion-LRM", url, width=SIZE[0], height=SIZE[1], min_size=(390, 500))
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        webview.start()
    except webview.errors.WebViewException as error:
        print(f"pywebview: {error}", file=sys.stderr)
        return NO_WINDOW
    return 0


def _end_with_input() -> None:
    while os.read(0, 4096):  # not through sys.stdin: its lock would be in the way at the end
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
