"""The contract for producers and listeners: AsyncAPI 3 and JSON Schema, with examples."""
