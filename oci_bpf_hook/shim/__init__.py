"""The shim: a library to preload, with which programs that know no tokens use one."""
