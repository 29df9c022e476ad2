"""Live recognition: sources, the page, MQTT, webhooks."""
