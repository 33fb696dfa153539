"""The broker: listeners, connections, the door to the journal, and amqtt behind it."""
