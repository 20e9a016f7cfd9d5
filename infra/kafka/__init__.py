"""Kafka: connections, topics, and the logs that others write to."""
