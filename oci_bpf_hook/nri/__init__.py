"""The NRI plugin: delegates when an engine that runs pods creates a container."""
