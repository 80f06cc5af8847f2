"""One window that shows one address, by pywebview, as a process of its own that ends with its input."""

from __future__ import annotations

import os
import sys
import threading

from toolkit.apps.desktop import NO_WINDOW, SIZE


def main(url: str) -> int:
    """Show ``url`` until the window is closed."""
    import webview

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
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
