"""The shim: a library to preload, which makes tokens for programs that make none themselves."""
