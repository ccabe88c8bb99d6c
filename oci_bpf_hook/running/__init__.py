"""What runs on this host: containers, their delegations, and who still holds one."""
