"""What `check` says about rights over HTTP."""

from __future__ import annotations

import pytest

from appliance.cli import main


def said(tmp_path, capsys, text: str) -> str:
    config = tmp_path / "config.toml"
    config.write_text(text, "utf-8")
    main(["check", "-c", str(config)])
    found = capsys.readouterr()
    return found.out + found.err


HTTP = '[http]\nbind = "127.0.0.1:8080"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[access.rule]]\nstart = ["Load *"]\n', "`start` has no effect: it is for starts over"),
        (
            HTTP + '[[access.rule]]\nclient_id = "press-*"\nstart = ["*"]\n',
            'the client id is $http, which `client_id` "press-*" does not match',
        ),
        (HTTP + '[[access.rule]]\nstart = [" "]\n', "it fits no task"),
        (HTTP + '[[access.rule]]\nstart = ["*"]\n', "so no client may publish or subscribe"),
        (HTTP + '[[access.rule]]\nstart = ["Load *"]\n', "start Load *"),
        ('[service]\nname = "http"\n', "$http is the sender of what comes in over HTTP"),
        ('[http]\nbind = "0.0.0.0:1"\n', "so clients must sign in"),
        ('[http]\nbind = "0.0.0.0:1"\n[access]\nanonymous = true\n', "remove `anonymous`"),
    ],
)
def test_check_says_what_a_right_over_http_means(tmp_path, capsys, text, words):
    assert words in said(tmp_path, capsys, text)
