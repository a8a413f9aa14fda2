"""Training configurations: schema, files and checks."""
