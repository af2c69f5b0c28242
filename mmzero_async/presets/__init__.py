"""Complete configurations, ready to run."""
