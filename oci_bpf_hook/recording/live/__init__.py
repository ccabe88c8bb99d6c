"""Recording while a program runs: seccomp's notifications, a sandbox, a container."""
