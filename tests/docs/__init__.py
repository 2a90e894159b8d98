"""The documentation says what the code does: links, tables, commands and plans are held to it."""
