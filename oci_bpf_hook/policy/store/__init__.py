"""The policy's files: reading what people write, compiling it, keeping it fresh."""
