"""What the HTTP port promises, whatever is asked of it."""

from __future__ import annotations

from http_site import HttpProcess, HttpSite, session


def test_a_message_is_in_the_journal_when_the_answer_comes(tmp_path) -> None:
    """The appliance in this process."""
    with HttpSite(tmp_path) as site:
        answer = site.ask("POST", "/messages/a/b", data=b"1")
        assert answer.status_code == 200, answer.text
        seq = answer.json()["seq"]
        assert site.appliance.journal.get(seq).payload == b"1"


def test_users_are_asked_for(tmp_path) -> None:
    with HttpSite(tmp_path, users=("anna",)) as site:
        assert site.ask("POST", "/messages/a", data=b"1").status_code == 401
        assert site.ask("POST", "/messages/a", "anna", data=b"1").status_code == 200


def test_a_process_of_its_own(tmp_path) -> None:
    with HttpProcess(tmp_path) as process, session() as client:
        process.start()
        answer = client.post(f"{process.url}/messages/a", data=b"1", timeout=60)
        assert answer.status_code == 200
        assert process.end() == 0
