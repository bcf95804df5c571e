"""The contract for producers: AsyncAPI 3 and JSON Schema, with examples."""
