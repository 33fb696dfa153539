"""The wire format of MQTT 3.1.1 and 5, for server and clients: topics, packets, properties."""
