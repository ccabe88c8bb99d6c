"""`python -m tests.docker`, as root: Docker and containerd of Debian 13, in a root of their own."""
