"""What tests of every kind share: services, databases, messages, commands and the model."""
