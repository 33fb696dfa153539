"""What the keys do on a page that shows a list of messages.

Not for: where the messages come from (live.py, search.py).
"""

from __future__ import annotations

from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.widgets.messages import MessageRows


class MessageListPage(Page):
    """A page whose body has one ``MessageRows``."""

    EXPORTED = "messages"

    @property
    def rows(self) -> MessageRows:
        return self.query_one(MessageRows)

    def action_open(self) -> None:
        """Show the whole of the message under the cursor."""
        message = self.rows.current
        if message is not None:
            self.host.navigation.show_message(message, list(self.rows.items))

    def action_copy(self) -> None:
        message = self.rows.current
        if message is not None:
            self.host.copy_payload(message)

    def action_copy_topic(self) -> None:
        message = self.rows.current
        if message is not None:
            self.host.copy(message.topic, "the topic")

    def action_copy_block(self) -> None:
        """A table of the configuration for the topic and payload of the message."""
        message = self.rows.current
        if message is not None:
            copy_menu.offer_blocks(self.host, message.topic, message)

    def action_values(self) -> None:
        """Plot the numbers of the message's topic."""
        message = self.rows.current
        if message is not None:
            self.host.navigation.show_values(message.topic)

    def action_client(self) -> None:
        """Go to the client that sent the message."""
        message = self.rows.current
        if message is not None:
            self.host.navigation.show_client(message.client_id)

    def action_explain(self) -> None:
        """Why the message under the cursor starts something or nothing."""
        message = self.rows.current
        if message is not None:
            self.host.navigation.explain_message(message.seq, message.topic, self.tab)

    def action_repeat(self) -> None:
        """Do again what the message under the cursor caused."""
        message = self.rows.current
        if message is not None:
            self.host.actions.repeat(message)

    def own_changed(self) -> None:
        """``remembered.show_own`` has changed."""

    def action_toggle_own(self) -> None:
        """Show the appliance's own messages in the list, or leave them out."""
        shown = not self.host.remembered.show_own
        self.host.remember(show_own=shown)
        self.own_changed()
        self.host.say(
            "The appliance's own status and outcomes are shown too."
            if shown
            else "The appliance's own status and outcomes are left out."
        )
