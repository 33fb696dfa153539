"""The two pages: signing in, and the terminal.

The terminal is textual-serve's. Not for: who gets which (server.py).
"""

from __future__ import annotations

from html import escape

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="data:,">
"""

_SIGN_IN = """\
<link rel="stylesheet" href="/static/page.css">
</head>
<body>
<form class="box" method="post" action="/sign-in">
<h1>{title}</h1>
<p class="error" role="alert">{error}</p>
<label>Name <input name="name" maxlength="256" autocomplete="username" autofocus></label>
<label>Password <input name="password" type="password" maxlength="1024"
 autocomplete="current-password"></label>
<button>Sign in</button>
<p>The users are those of the appliance's broker. An appliance without a users file asks for none:
leave both empty.</p>
</form>
</body>
</html>
"""

_TERMINAL = """\
<link rel="stylesheet" href="/static/xterm.css">
<link rel="stylesheet" href="/static/page.css">
<script src="/static/textual.js"></script>
</head>
<body>
<div class="box closed">
<p>The terminal has ended. Within a minute it opens again; after that, or after <kbd>q</kbd>, sign
in again.</p>
<p><a href="/">Open</a></p>
<form method="post" action="/sign-out"><button>Sign out</button></form>
</div>
<div id="terminal" class="textual-terminal" data-session-websocket-url="{socket}"
 data-font-size="16"></div>
<script src="/static/page.js"></script>
</body>
</html>
"""

STYLE = """\
@font-face { font-family: "Roboto Mono"; src: url("/static/RobotoMono.ttf"); }
body { background: #10151a; color: #e6e6e6; font: 16px "Roboto Mono", monospace; margin: 0; }
#terminal { width: 100vw; height: 100vh; overflow: hidden; }
.box { width: 30rem; max-width: 90vw; margin: 15vh auto; padding: 1rem 2rem; background: #1d252d; }
.box label { display: block; margin: 1rem 0; }
.box input { display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .4rem; }
.box button { font: inherit; padding: .4rem 1.5rem; }
.box h1 { font-size: 1.2rem; }
.box a { color: #8ec5ff; }
.error { color: #ff9d9d; min-height: 1.2em; }
.closed { display: none; position: fixed; left: 0; right: 0; z-index: 10; }
body.-closed .closed { display: block; }
body.-closed #terminal { display: none; }
"""


SCRIPT = """\
"use strict";
// Keys go to the terminal without a click on it first. textual.js gives the body this class when it
// is connected: before, it would fail to tell of the focus.
function focusTerminal() {
  const input = document.querySelector("body.-loaded:not(.-closed) .xterm-helper-textarea");
  if (input) input.focus();
}
new MutationObserver(focusTerminal).observe(document.body, { attributeFilter: ["class"] });
window.addEventListener("focus", focusTerminal);
"""


def sign_in(shown: str, error: str = "") -> str:
    """The page with the form; ``shown``: which appliance; ``error``: why the last try failed."""
    title = escape(f"Appliance at {shown}")
    return _HEAD.format(title=title) + _SIGN_IN.format(title=title, error=escape(error))


def terminal(shown: str, socket: str) -> str:
    """The page with the terminal; ``socket``: the address of its WebSocket."""
    title = escape(f"Appliance at {shown}")
    return _HEAD.format(title=title) + _TERMINAL.format(socket=escape(socket))
