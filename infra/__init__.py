"""The outside world: adapters, settings, resources, local services."""
