"""What the administrator allows: the policy, who asks, which rule decides, and why not."""
